// SPDX-License-Identifier: Apache-2.0
// Sentences as vectors: `encoder MODEL --search FILE --query "May I sell copies?"`. Run it without arguments for its options.

#include "check.hpp"
#include "collection.hpp"
#include "measure.hpp"
#include "model.hpp"
#include "model_folder.hpp"
#include "report.hpp"
#include "similarity.hpp"

#include <tern/core/thread_pool.hpp>

#include <charconv>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace encoder {

using tern::index;

namespace {

constexpr char const* usage = R"(usage: encoder MODEL [options]

  MODEL is the folder of all-MiniLM-L6-v2, as sentence-transformers keeps it; FILES are texts, with a comma between.

  --search FILES    the sentences that are nearest to those of --query
  --query TEXT      what to look for
  --check FILE      compare with what another implementation made of some texts: vectors/reference.json
  --measure FILES   time the sentences with and without padding
  --report FILES    what it costs to go on with fewer tokens: passages of the texts, as long as the model takes
                    them; a table, and a picture in encoder_report.svg
  --threads N       (one a core)
  --compute TYPE    fastest (default): bf16 where it is faster than f32; f32; bf16
)";

struct options {
  std::string model, search, query, check, measure, report;
  index threads = 0;
  tern::compute compute = tern::compute::fastest;
};

index number(std::string_view option, std::string_view text) {
  index value = 0;
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size())
    throw tern::error("encoder: " + std::string(option) + " is " + std::string(text) + ", expected a number");
  return value;
}

tern::compute compute_type(std::string_view text) {
  if (text == "f32") return tern::compute::f32;
  if (text == "bf16") return tern::compute::bf16;
  if (text == "fastest") return tern::compute::fastest;
  throw tern::error("encoder: --compute is " + std::string(text) + ", expected f32, bf16 or fastest");
}

options parse(std::span<char* const> arguments) {
  options o;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    std::string_view const a = arguments[i];
    auto const value = [&]() -> std::string_view {
      if (i + 1 == arguments.size()) throw tern::error("encoder: " + std::string(a) + " is the last argument, expected a value after it");
      return arguments[++i];
    };
    if (a == "--search")
      o.search = value();
    else if (a == "--query")
      o.query = value();
    else if (a == "--check")
      o.check = value();
    else if (a == "--measure")
      o.measure = value();
    else if (a == "--report")
      o.report = value();
    else if (a == "--threads")
      o.threads = number(a, value());
    else if (a == "--compute")
      o.compute = compute_type(value());
    else if (o.model.empty() && !a.starts_with("-"))
      o.model = a;
    else
      throw tern::error("encoder: " + std::string(a) + " is no option; run encoder without arguments for a list");
  }
  return o;
}

std::vector<text> tokens_of(std::vector<std::string> const& texts, model_folder const& folder) {
  std::vector<text> all;
  for (std::string const& t : texts) all.push_back(folder.words.encode(t, folder.longest));
  return all;
}

void search(options const& o, model_folder const& folder, model& network, tern::cpu_policy const& policy) {
  constexpr index shown = 5;
  auto const sentences = sentences_of(o.search);
  embeddings all(sentences.size(), network.width()), query(1, network.width());
  network.embed(tokens_of(sentences, folder), all.view());
  network.embed(tokens_of({o.query}, folder), query.view());
  auto const found = nearest(policy, query, all, shown);
  std::printf("%s (of %zu sentences)\n", o.query.c_str(), sentences.size());
  for (index const i : found[0]) {
    auto const at = static_cast<std::size_t>(i);
    std::printf("  %.3f  %s\n", cosine(query[0], all[at]), sentences[at].c_str());
  }
}

int run(options const& o) {
  model_folder const folder(o.model);
  tern::thread_pool threads(o.threads);
  auto const policy = tern::cpu.on(threads);
  model network(folder.tensors, policy, o.compute);
  if (!o.check.empty() && !check(folder, network, o.check)) return 1;
  if (!o.measure.empty()) measure_padding(tokens_of(sentences_of(o.measure), folder), network);
  if (!o.report.empty()) report_methods(passages_of(o.report, folder.words, folder.longest), network, policy);
  if (!o.search.empty()) search(o, folder, network, policy);
  return 0;
}

}  // namespace
}  // namespace encoder

int main(int argc, char** argv) try {
  if (argc < 3) return std::fputs(encoder::usage, stderr), 2;
  return encoder::run(encoder::parse({argv, static_cast<std::size_t>(argc)}));
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
