// SPDX-License-Identifier: Apache-2.0
#include "kv_report.hpp"

#include "evaluation.hpp"
#include "kv_chunks.hpp"
#include "kv_picture.hpp"

#include <tern/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>

namespace llm {

using tern::index;

namespace {

using token = tokenizer::token;
constexpr index context = 4096, scored = 256, facts = 20, fact_texts = 5, fact_contexts[] = {2048, 6144};
constexpr char const* names[facts] = {"Alice", "Boris", "Clara", "David", "Elena", "Felix", "Grace", "Henry", "Irene", "James",
                                      "Karin", "Louis", "Maria", "Nigel", "Olive", "Peter", "Quinn", "Roger", "Susan", "Tomas"};

/// A store and the share of the tokens that it keeps.
struct contestant {
  kv_store_name const* store;
  index share;  // 1 / share of the tokens
  comparison predictions = {};
  index right[std::size(fact_contexts)] = {};
  double bytes = 0, rate = 0;

  std::string title() const { return store->name + (store->takes_budget() ? " 1/" + std::to_string(share) : ""); }
  /// The network goes on with this store of the tokens, which `text` has whole.
  void use(model& network, tern::cpu_policy const& policy, full_store& text, std::span<token const> tokens) const {
    auto const length = static_cast<index>(tokens.size());
    std::string name = store->name;
    if (store->takes_budget()) name.append(":").append(std::to_string(length / share));
    switch (store->from) {
      case kv_store_name::source::reading:
        network.use(make_kv_store(name, network.shape(), policy), 0);
        network.read(tokens, 0);
        break;
      case kv_store_name::source::chunks:
        network.use(read_in_chunks(name, network, policy, tokens), length);
        break;
      default:
        network.use(make_kv_store(name, network.shape(), policy, &text), length);
    }
  }
};

/// All, or those of a list with a comma between.
std::vector<contestant> contestants_of(std::string const& list) {
  std::vector<contestant> all;
  std::string known, left = list.empty() ? "" : "," + list + ",";
  for (kv_store_name const& n : kv_store_names()) {
    known += " " + n.name;
    auto const at = left.find("," + n.name + ",");
    if (!list.empty() && at == std::string::npos) continue;
    for (index share : {4, 8})
      if (n.takes_budget() || share == 4) all.push_back({&n, share});
    if (!list.empty()) left.erase(at, n.name.size() + 1);
  }
  if (left.size() > 1) throw tern::error("llm: --kv is " + list + ", expected with --kv-report some of" + known);
  return all;
}

class progress {
 public:
  explicit progress(std::size_t total) : total_(total) {}
  void step(std::string const& what) {
    std::size_t const part = 30 * ++done_ / total_;
    std::fprintf(stderr, "\r[%s%s] %-40s", std::string(part, '#').c_str(), std::string(30 - part, '.').c_str(), what.c_str());
  }

 private:
  std::size_t total_, done_ = 0;
};

std::vector<std::vector<token>> read_texts(tokenizer const& words, std::string const& files) {
  std::vector<std::vector<token>> texts;
  for (std::size_t at = 0; at < files.size();) {
    std::string const path = files.substr(at, files.find(',', at) - at);
    at += path.size() + 1;
    std::ifstream file(path, std::ios::binary);
    if (!file) throw tern::error("llm: " + path + " cannot be read");
    texts.push_back(words.encode(std::string{std::istreambuf_iterator<char>(file), {}}, false));
    if (words.begin() >= 0) texts.back().insert(texts.back().begin(), words.begin());
    if (texts.back().size() < context + scored)
      throw tern::error("llm: " + path + " has " + std::to_string(texts.back().size()) + " tokens, expected at least " +
                        std::to_string(context + scored));
  }
  return texts;
}

token likeliest_of(tern::tensor_view<float const, 1> logits) {
  return static_cast<token>(std::max_element(logits.data(), logits.data() + logits.extent(0)) - logits.data());
}

/// Calls f(i, logits behind tokens[i]) for all but the last token, read one by one or together.
template <class F>
void predict(model& network, std::span<token const> tokens, bool stepwise, F&& f) {
  auto const count = static_cast<index>(tokens.size());
  if (stepwise) {
    for (index i = 0; i + 1 < count; ++i) f(i, network.read(tokens.subspan(static_cast<std::size_t>(i), 1))[0]);
  } else {
    auto const logits = network.read(tokens.first(tokens.size() - 1), count - 1);
    for (index i = 0; i + 1 < count; ++i) f(i, logits[i]);
  }
}

void compare_predictions(model& network, tern::cpu_policy const& policy, std::vector<token> const& tokens, std::vector<contestant>& all,
                         progress& done) {
  std::span<token const> const rest(tokens.data() + context - 1, scored + 1);  // the first is read again, for what it predicts
  auto const before = std::span(tokens).first(context - 1);
  full_store text = read_text(network, policy, before, full_store::observes::sums);
  std::vector<std::vector<float>> wanted[2];  // together, and one by one: products of few rows round differently
  double full = 0;
  for (bool stepwise : {false, true}) {
    network.use(std::make_unique<full_store>(text), context - 1);
    full = static_cast<double>(network.store().bytes());
    predict(network, rest, stepwise, [&](index, auto logits) { wanted[stepwise].push_back(log_probabilities(logits)); });
  }
  for (contestant& c : all) {
    done.step(c.title());
    c.use(network, policy, text, before);
    c.bytes = static_cast<double>(network.store().bytes()) / full;
    bool const stepwise = network.store().stepwise();
    predict(network, rest, stepwise, [&](index i, auto logits) {
      c.predictions.add(wanted[stepwise][static_cast<std::size_t>(i)], logits, rest[static_cast<std::size_t>(i) + 1]);
    });
    constexpr int steps = 16;
    stopwatch const clock;
    for (int i = 0; i < steps; ++i) network.read(std::span(&rest[static_cast<std::size_t>(i)], 1));
    c.rate = std::max(c.rate, steps / clock.seconds());
  }
}

std::string fact(index i, std::string const& number) { return "\nThe secret number of " + std::string(names[i]) + " is " + number + ".\n"; }

/// Facts in a text of about `length` tokens, and their numbers.
struct fact_text {
  std::vector<token> tokens;
  std::vector<std::string> numbers;

  fact_text(tokenizer const& words, std::vector<token> const& from, index length, index which) {
    tern::random random(static_cast<std::uint64_t>(length + which));
    std::vector<std::vector<token>> lines;
    index of_facts = 0;
    for (index i = 0; i < facts; ++i) {
      numbers.push_back(std::to_string(1000 + random() % 9000));
      lines.push_back(words.encode(fact(i, numbers.back()), false));
      of_facts += static_cast<index>(lines.back().size());
    }
    index const piece = (length - of_facts) / (facts + 1);
    auto at = from.begin() + which * (static_cast<index>(from.size()) - length) / fact_texts;
    for (index i = 0; i <= facts; ++i) {
      tokens.insert(tokens.end(), at, at + piece);
      at += piece;
      if (i < facts)
        tokens.insert(tokens.end(), lines[static_cast<std::size_t>((i + which) % facts)].begin(),
                      lines[static_cast<std::size_t>((i + which) % facts)].end());
    }
  }
};

using tokens_view = std::span<token const>;

/// Reads tokens, one by one where that makes a difference.
auto read_as_written(model& network, tokens_view tokens) {
  for (; network.store().stepwise() && tokens.size() > 1; tokens = tokens.subspan(1)) network.read(tokens.first(1), 0);
  return network.read(tokens);
}

/// Whether the model writes the number behind the end of a question; it is not asked further once it has written something else.
bool answers(model& network, tokenizer const& words, tokens_view question, std::string const& number) {
  std::string const wanted = " " + number;
  auto logits = read_as_written(network, question);
  for (std::string written;;) {
    token const next = likeliest_of(logits[0]);
    written += words.bytes(next);
    if (written.size() >= wanted.size()) return written.substr(0, wanted.size()) == wanted;
    if (written.empty() || !wanted.starts_with(written)) return false;
    logits = network.read(tokens_view(&next, 1));
  }
}

/// How many of the numbers the model writes when it is asked for each.
index right_answers(model& network, tokenizer const& words, fact_text const& text) {
  std::vector<std::vector<token>> questions;
  for (char const* who : names) questions.push_back(words.encode("\nThe secret number of " + std::string(who) + " is", false));
  std::size_t same = 0;  // tokens that all begin with are read once
  while (
      std::all_of(questions.begin(), questions.end(), [&](auto const& q) { return same + 1 < q.size() && q[same] == questions[0][same]; }))
    ++same;
  read_as_written(network, tokens_view(questions[0]).first(same));
  index right = 0;
  for (index i = 0; i < facts; ++i) {
    right += answers(network, words, tokens_view(questions[static_cast<std::size_t>(i)]).subspan(same),
                     text.numbers[static_cast<std::size_t>(i)]);
    network.rewind(static_cast<index>(text.tokens.size() + same));
  }
  return right;
}

void ask_for_facts(model& network, tern::cpu_policy const& policy, tokenizer const& words, std::vector<token> const& from,
                   std::vector<contestant>& all, progress& done) {
  for (std::size_t size = 0; size < std::size(fact_contexts); ++size)
    for (index which = 0; which < fact_texts; ++which) {
      fact_text const wanted(words, from, fact_contexts[size], which);
      full_store text = read_text(network, policy, wanted.tokens, full_store::observes::sums);
      for (contestant& c : all) {
        done.step(c.title() + ", " + std::to_string(fact_contexts[size]) + " tokens");
        c.use(network, policy, text, wanted.tokens);
        c.right[size] += right_answers(network, words, wanted);
      }
    }
}

void print_table(std::vector<contestant> const& all) {
  std::puts("| store | what it keeps | bytes, of f16 | KL divergence | top-1 agreement | perplexity | facts, 2k | facts, 6k | tokens/s |");
  std::puts("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  for (contestant const& c : all) {
    quality const q = c.predictions.means();
    std::printf("| %s | %s | %.3f | %.4f | %.1f %% | %.3f | %td %% | %td %% | %.0f |\n", c.title().c_str(), c.store->what, c.bytes,
                q.divergence, 100 * q.agreement, q.perplexity, 100 * c.right[0] / (facts * fact_texts),
                100 * c.right[1] / (facts * fact_texts), c.rate);
  }
}

void draw(std::vector<contestant> const& all) {
  std::vector<kv_point> points;
  for (contestant const& c : all) points.push_back({c.store->name, c.bytes, c.predictions.means().divergence, c.store->takes_budget()});
  draw_kv_points(std::move(points), "kv_report.svg");
}

/// Says of each pair that was compared whether the first is as good as it must be beside the second, and returns whether all are.
bool check(std::vector<contestant> const& all) {
  bool good = true;
  auto const of = [&](char const* name, index share) {
    return std::find_if(all.begin(), all.end(), [&](contestant const& c) { return c.store->name == name && c.share == share; });
  };
  auto const must = [&](char const* name, index share, char const* what, char const* other, auto const& holds) {
    auto const a = of(name, share), b = of(other, share);
    if (a == all.end() || b == all.end()) return;
    bool const does = holds(a->predictions.means(), b->predictions.means());
    std::fprintf(stderr, "%s %s %s: %s\n", a->title().c_str(), what, b->title().c_str(), does ? "yes" : "NO");
    good = good && does;
  };
  auto const loses_less = [](quality const& a, quality const& b) { return a.divergence < b.divergence; };
  // Sums of rounded logarithms are not zero.
  must("f16", 4, "is", "f16", [](quality const& a, quality const&) { return std::abs(a.divergence) < 1e-6 && a.agreement == 1; });
  must("q8", 4, "has a perplexity at most 0.1 % above that of", "f16",
       [](quality const& a, quality const& b) { return a.perplexity <= 1.001 * b.perplexity; });
  must("kivi-rotated", 4, "loses less than", "kivi", loses_less);
  for (index share : {4, 8})
    for (char const* name : {"snapkv", "h2o"}) must(name, share, "loses less than", "random", loses_less);
  return good;
}

}  // namespace

bool report_kv_stores(tokenizer const& words, model& network, tern::cpu_policy const& policy, std::string const& files,
                      std::string const& stores) {
  auto const texts = read_texts(words, files);
  std::vector<token> haystack;
  for (auto const& t : texts) haystack.insert(haystack.end(), t.begin(), t.end());
  auto all = contestants_of(stores);
  progress done(all.size() * (texts.size() + fact_texts * std::size(fact_contexts)));
  for (auto const& t : texts) compare_predictions(network, policy, t, all, done);
  ask_for_facts(network, policy, words, haystack, all, done);
  std::fprintf(stderr, "\n");
  std::stable_sort(all.begin(), all.end(), [](contestant const& a, contestant const& b) {
    return a.predictions.means().divergence < b.predictions.means().divergence;
  });
  print_table(all);
  draw(all);
  return check(all);
}

}  // namespace llm
