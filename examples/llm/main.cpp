// SPDX-License-Identifier: Apache-2.0
// A language model that writes text: `llm MODEL.gguf --prompt "What is gravity?"`. Run it without arguments for its options.

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tern/sampling.hpp>
#include "../common/mapped_file.hpp"
#include "evaluation.hpp"
#include "kv_report.hpp"
#include "model.hpp"
#include "requantize.hpp"
#include "tokenizer.hpp"

namespace llm {

using tern::index;

namespace {

constexpr char const* usage = R"(usage: llm MODEL.gguf [options]

  --prompt TEXT      what to answer; without it, a conversation on standard input
  --system TEXT      what the model is told before the conversation
  --no-chat          continue the prompt as it stands instead of answering it
  -n COUNT           tokens to write at most (256)
  --temperature T    (0.7)   --top-k K (40)   --top-p P (0.95)   --seed S (1)
  --greedy           always the likeliest token
  --ignore-end       keep writing after the model's end token
  --perplexity FILE  score a text instead: windows of 512 tokens, each on its own, of which the second half counts
  --requantize LIST  with --perplexity FILE: turn the layers' weights into each of the formats (q4_0,nf4 or all), by rounding and
                     blocks by GPTQ, too, and print a table of what that costs; the file's first half calibrates, the second is scored
  --kv METHOD        where keys and values are kept: METHODS
  --kv-report FILES  what that costs: texts with a comma between, of at least 4400 tokens; a table, and a picture in kv_report.svg;
                     of all METHODS, or with --kv of those named, with a comma between
  --measure P,G      time a prompt of P tokens and the generation of G more
  --threads N        (one a core)   --context N (2048)
  --compute TYPE     fastest (default): int8, or bf16 for prompts where it is faster; int8: activations in blocks of 8-bit numbers;
                     f32: exact, slower; bf16
  --in-place         multiply with the file's weights where they lie: half the memory, slower
  --steps FILE       write each token's number, its logit, the runner-up's number and its logit
  --json             results of --perplexity and --measure for programs, as the last line
)";

struct options {
  std::string model, prompt, system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
  std::string perplexity, requantize, measure, steps, kv, kv_report;
  bool has_prompt = false, chat = true, greedy = false, ignore_end = false, in_place = false, json = false;
  index count = 256, threads = 0, context = 2048;
  tern::compute compute = tern::compute::fastest;
  tern::sampling sampling{.temperature = 0.7F, .top_k = 40, .top_p = 0.95F};
  std::uint64_t seed = 1;
};

template <class T>
T number(std::string_view option, std::string_view text) {
  T value{};
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size())
    throw tern::error("llm: " + std::string(option) + " is " + std::string(text) + ", expected a number");
  return value;
}

tern::compute compute_type(std::string_view text) {
  if (text == "fastest") return tern::compute::fastest;
  if (text == "int8") return tern::compute::int8;
  if (text == "f32") return tern::compute::f32;
  if (text == "bf16") return tern::compute::bf16;
  throw tern::error("llm: --compute is " + std::string(text) + ", expected fastest, int8, f32 or bf16");
}

options parse(std::span<char* const> arguments) {
  options o;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    std::string_view const a = arguments[i];
    auto const value = [&]() -> std::string_view {
      if (i + 1 == arguments.size()) throw tern::error("llm: " + std::string(a) + " is the last argument, expected a value after it");
      return arguments[++i];
    };
    if (a == "--prompt")
      o.prompt = value(), o.has_prompt = true;
    else if (a == "--system")
      o.system = value();
    else if (a == "--no-chat")
      o.chat = false;
    else if (a == "-n")
      o.count = number<index>(a, value());
    else if (a == "--temperature")
      o.sampling.temperature = number<float>(a, value());
    else if (a == "--top-k")
      o.sampling.top_k = number<index>(a, value());
    else if (a == "--top-p")
      o.sampling.top_p = number<float>(a, value());
    else if (a == "--seed")
      o.seed = number<std::uint64_t>(a, value());
    else if (a == "--greedy")
      o.greedy = true;
    else if (a == "--ignore-end")
      o.ignore_end = true;
    else if (a == "--perplexity")
      o.perplexity = value();
    else if (a == "--requantize")
      o.requantize = value();
    else if (a == "--kv")
      o.kv = value();
    else if (a == "--kv-report")
      o.kv_report = value();
    else if (a == "--measure")
      o.measure = value();
    else if (a == "--threads")
      o.threads = number<index>(a, value());
    else if (a == "--context")
      o.context = number<index>(a, value());
    else if (a == "--in-place")
      o.in_place = true;
    else if (a == "--compute")
      o.compute = compute_type(value());
    else if (a == "--steps")
      o.steps = value();
    else if (a == "--json")
      o.json = true;
    else if (o.model.empty() && !a.starts_with("-"))
      o.model = a;
    else
      throw tern::error("llm: " + std::string(a) + " is no option; run llm without arguments for a list");
  }
  return o;
}

/// Writes the model's text as it comes, and keeps count.
class writer {
 public:
  writer(options const& o, tokenizer const& words, model& network) : options_(o), words_(words), network_(network), random_(o.seed) {
    if (o.greedy) options_.sampling.temperature = 0;
    if (!o.steps.empty()) steps_.open(o.steps);
  }

  /// Reads the tokens, then writes until the model ends, `count` tokens are written or the context is full.
  void answer(std::span<tokenizer::token const> prompt) {
    if (prompt.empty()) throw tern::error("llm: the prompt has 0 tokens, expected at least 1");
    stopwatch const reading;
    auto logits = network_.read(prompt);
    prompt_tokens_ += static_cast<index>(prompt.size());
    prompt_seconds_ += reading.seconds();
    stopwatch const writing;
    for (index i = 0; i < options_.count; ++i) {
      auto const next = static_cast<tokenizer::token>(tern::sample(logits[0], options_.sampling, random_));
      if (steps_.is_open()) write_step(logits[0]);
      if (words_.ends(next) && !options_.ignore_end) break;
      auto const text = words_.bytes(next);
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
      ++written_;
      if (network_.length() == network_.context()) break;
      logits = network_.read(std::span(&next, 1));
    }
    std::puts("");
    seconds_ += writing.seconds();
  }

  void report() const {
    std::fprintf(stderr, "\nprompt: %td tokens, %.1f tokens/s; generation: %td tokens, %.1f tokens/s\n", prompt_tokens_,
                 static_cast<double>(prompt_tokens_) / prompt_seconds_, written_, static_cast<double>(written_) / seconds_);
  }

 private:
  void write_step(tern::tensor_view<float const, 1> logits) {
    index first = 0, second = -1;
    for (index i = 1; i < logits.extent(0); ++i) {
      if (logits[i] > logits[first])
        second = std::exchange(first, i);
      else if (second < 0 || logits[i] > logits[second])
        second = i;
    }
    steps_ << first << ' ' << logits[first] << ' ' << second << ' ' << logits[second] << '\n';
  }

  options options_;
  tokenizer const& words_;
  model& network_;
  tern::random random_;
  std::ofstream steps_;
  index prompt_tokens_ = 0, written_ = 0;
  double prompt_seconds_ = 0, seconds_ = 0;
};

std::string turn(std::string_view role, std::string_view text) {
  return "<|im_start|>" + std::string(role) + '\n' + std::string(text) + "<|im_end|>\n";
}

void write(options const& o, tokenizer const& words, model& network) {
  writer out(o, words, network);
  std::vector<tokenizer::token> start;
  if (words.begin() >= 0) start.push_back(words.begin());
  auto const read = [&](std::string const& text) {
    auto const tokens = words.encode(text, true);
    start.insert(start.end(), tokens.begin(), tokens.end());
    out.answer(std::exchange(start, {}));
  };
  if (!o.chat || !words.has_chat()) {
    read(o.prompt);
  } else if (o.has_prompt) {
    read(turn("system", o.system) + turn("user", o.prompt) + "<|im_start|>assistant\n");
  } else {
    std::string before = turn("system", o.system);
    for (std::string line; std::fputs("> ", stderr), std::getline(std::cin, line);) {
      read(before + turn("user", line) + "<|im_start|>assistant\n");
      before = "<|im_end|>\n";
    }
  }
  out.report();
}

void score(options const& o, tokenizer const& words, model& network) {
  auto const parts = windows_of(words, o.perplexity);
  double total = 0;
  index count = 0;
  stopwatch const clock;
  for (std::size_t w = 0; w < parts.size(); ++w) {
    network.rewind();
    auto const logits = network.read(parts[w], scored_tokens);
    for (index i = 0; i + 1 < scored_tokens; ++i, ++count) total += surprise(logits[i], expected_after(parts[w], i));
    std::size_t const done = 30 * (w + 1) / parts.size();
    std::fprintf(stderr, "\r[%s%s] %zu/%zu windows, %.0f tokens/s, perplexity %.4f ", std::string(done, '#').c_str(),
                 std::string(30 - done, '.').c_str(), w + 1, parts.size(), static_cast<double>((w + 1) * window_tokens) / clock.seconds(),
                 std::exp(total / static_cast<double>(count)));
  }
  double const perplexity = std::exp(total / static_cast<double>(count));
  std::fprintf(stderr, "\n");
  std::printf(o.json ? "{\"perplexity\": %.6f, \"scored\": %td}\n" : "perplexity %.4f over %td tokens\n", perplexity, count);
}

void measure(options const& o, model& network) {
  auto const comma = o.measure.find(',');
  if (comma == std::string::npos) throw tern::error("llm: --measure is " + o.measure + ", expected two numbers with a comma between");
  auto const prompt = number<index>("--measure", std::string_view(o.measure).substr(0, comma));
  auto const generated = number<index>("--measure", std::string_view(o.measure).substr(comma + 1));
  rates const r = measure_rates(network, prompt, generated);
  std::printf(o.json ? "{\"prompt\": %.2f, \"generation\": %.2f}\n" : "prompt %.1f tokens/s, generation %.1f tokens/s\n", r.prompt,
              r.generation);
}

/// The usage, with the names of stores where it says METHODS.
void print_usage() {
  std::string const text = usage;
  std::string names;
  for (kv_store_name const& n : kv_store_names())
    names += "\n                       " + n.name + std::string(n.takes_budget() ? ":TOKENS" : "") + "  " + n.what;
  auto const at = text.find("METHODS");
  std::fprintf(stderr, "%s%s%s", text.substr(0, at).c_str(), names.c_str(), text.substr(at + 7).c_str());
}

int run(options const& o) {
  common::mapped_file const bytes(o.model);
  tern::gguf_file const file(bytes.data(), bytes.size());
  tern::thread_pool threads(o.threads);
  tokenizer const words(file);
  model network(file, tern::cpu.on(threads), o.compute, !o.kv_report.empty() ? 0 : o.perplexity.empty() ? o.context : 512);
  if (!o.kv.empty() && o.kv_report.empty()) network.use(make_kv_store(o.kv, network.shape(), tern::cpu.on(threads)), 0);
  if (network.vocabulary() != words.size())
    throw tern::error("llm: the embedding has " + std::to_string(network.vocabulary()) + " rows, expected one for each of the " +
                      std::to_string(words.size()) + " tokens");
  if (!o.in_place && o.requantize.empty()) network.repack();
  if (!o.kv_report.empty())
    return report_kv_stores(words, network, tern::cpu.on(threads), o.kv_report, o.kv) ? 0 : 1;
  else if (!o.requantize.empty())
    requantize(file, words, network, tern::cpu.on(threads), o.requantize, o.perplexity);
  else if (!o.perplexity.empty())
    score(o, words, network);
  else if (!o.measure.empty())
    measure(o, network);
  else
    write(o, words, network);
  return 0;
}

}  // namespace
}  // namespace llm

int main(int argc, char** argv) try {
  if (argc < 2) return llm::print_usage(), 2;
  return llm::run(llm::parse({argv, static_cast<std::size_t>(argc)}));
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
