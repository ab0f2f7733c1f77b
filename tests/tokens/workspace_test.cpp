// SPDX-License-Identifier: Apache-2.0
// Every call on tokens, in one table: a workspace of the size asked for serves it, and nothing is allocated from the second time on.
#include <tern/tokens/grid_components.hpp>
#include <tern/tokens/mix_tokens.hpp>
#include <tern/tokens/proportional.hpp>
#include <tern/tokens/select_windows.hpp>
#include <tern/tokens/systems/aim.hpp>
#include <tern/tokens/systems/diffrate.hpp>
#include <tern/tokens/systems/evad.hpp>
#include <tern/tokens/systems/expediting_vit.hpp>
#include <tern/tokens/systems/glmix.hpp>
#include <tern/tokens/systems/ia_red2.hpp>
#include <tern/tokens/systems/lemo.hpp>
#include <tern/tokens/systems/paraformer.hpp>
#include <tern/tokens/systems/pyra.hpp>
#include <tern/tokens/systems/showui.hpp>
#include <tern/tokens/systems/simvlg.hpp>
#include <tern/tokens/systems/sit.hpp>
#include <tern/tokens/systems/stvit.hpp>
#include <tern/tokens/systems/toc3d.hpp>
#include <tern/tokens/systems/turbo.hpp>
#include <tern/tokens/token_norms.hpp>
#include <tern/tokens/tokens_for_share.hpp>

#include "allocations.hpp"
#include "samples.hpp"

namespace tern::test {
namespace {

/// Calls that have no policy, and so no scratch memory.
template <class F>
struct without_policy {
  F call;
  template <class... Args>
  void operator()(cpu_policy const&, Args const&... args) const {
    call(args...);
  }
};
template <class F>
without_policy(F) -> without_policy<F>;

template <class Op, class... Args>
std::size_t size_of(Op const& op, cpu_policy const& policy, Args const&... args) {
  if constexpr (requires { op.workspace_size(policy, args...); })
    return workspace_size(op, policy, args...);
  else
    return 0;
}

/// A row of the table.
template <class Op, class... Args>
void check(char const* name, Op const& op, Args const&... args) {
  INFO(name);
  for (cpu_policy const& policy : {cpu.on(serial), cpu.on(several_threads())}) {
    workspace growing;
    op(policy.with(growing), args...);
    index before = allocations();
    op(policy.with(growing), args...);
    index after = allocations();
    CHECK(after == before);
    std::size_t const bytes = size_of(op, policy, args...), taken = growing.capacity();
    std::vector<std::byte> memory(bytes);
    workspace exact(memory.data(), bytes);
    before = allocations();
    op(policy.with(exact), args...);
    after = allocations();
    CHECK(after == before);
    // What is asked for is for any lists of that size: these here fill them in part.
    CHECK(bytes <= 3 * taken + (taken > 0 ? 4096 : 0));
  }
}

constexpr index samples = 2, rows = 8, columns = 12, tokens = rows * columns, heads = 3, dim = 16, channels = heads * dim, few = 20;

/// Memory for all that a call may want.
template <class T>
struct inputs {
  rng r{77};
  token_tensor<T> x{r, samples, tokens, channels}, y{samples, tokens, channels};
  std::vector<float> const metric = r.normal(samples * tokens * dim), weights = r.normal(channels * channels, 0.1),
                           keys = r.normal(samples * tokens * channels), ones = std::vector<float>(samples * tokens, 1.f);
  std::vector<float> scores = r.normal(samples * tokens), merged = scores, out = keys;
  token_lists kept{samples, tokens}, always{{{0, 5}, {1}}, 2};
  own_map map{samples, tokens};
  own_pairs pairs{samples, tokens};

  inputs() {
    for (float& s : scores) s = std::abs(s) + 0.01f;
    select_tokens(row(scores), few, protect{1}, kept.view);
    map_kept(kept.view, map.view, others::together);
  }
  static tensor_view<float, 2> row(std::vector<float>& v) { return tern::view(v.data(), samples, tokens); }
  static tensor_view<float const, 2> row(std::vector<float> const& v) { return tern::view(v.data(), samples, tokens); }
  tensor_view<float const, 3> directions() const { return tern::view(metric.data(), samples, tokens, dim); }
  tensor_view<T, 3> part(index n) { return y.view.slice(1, 0, n); }
  tensor_view<float const, 1> learned(index n) const { return tern::view(weights.data(), n); }
  tensor_view<float const, 2> learned(index n, index k) const { return tern::view(weights.data(), n, k); }
  tensor_view<float const, 4> by_head(index n = tokens) const { return tern::view(keys.data(), samples, heads, n, dim); }
  tensor_view<float, 4> out_by_head(index n = tokens) { return tern::view(out.data(), samples, heads, n, dim); }
  tensor_view<float, 3> numbers(index n) { return tern::view(out.data(), samples, n, channels); }
};

template <class T>
void check_parts() {
  inputs<T> in;
  auto const scores = inputs<T>::row(std::as_const(in.scores));
  auto const merged = inputs<T>::row(in.merged);
  auto const sizes = inputs<T>::row(in.ones);
  auto const &kept = in.kept.view, &always = in.always.view;
  token_lists other(samples, tokens);
  check("select_tokens", select_tokens, scores, token_budget(few), protect{1, 1}, other.view);
  check("select_tokens with a list", select_tokens, scores, token_budget(few), always, other.view);
  check("select_tokens_above", select_tokens_above, scores, 0.5f, protect{1}, other.view);
  check("select_tokens_for_share", select_tokens_for_share, scores, 0.5, protect{1}, other.view);
  check("select_tokens_in_windows", select_tokens_in_windows, scores, shape<2>{{rows, columns}}, shape<2>{{5, 5}}, index{3}, other.view);
  check("token_norms", token_norms, in.x.view, merged);
  check("log_sizes", log_sizes, sizes, merged);
  check("gather_tokens", gather_tokens, kept, moved{in.x.view, in.part(few)});
  check("scatter_tokens", scatter_tokens, kept, moved{in.part(few), in.x.view});
  check("unmerge_tokens", unmerge_tokens, in.map.view, moved{in.part(few + 1), in.x.view});
  check("add_tokens", add_tokens, in.map.view, moved{in.part(few + 1), in.x.view});
  check("average_tokens", average_tokens, in.map.view, sizes, merged, moved{in.x.view, in.part(few + 1)});
  check("bipartite_matching", bipartite_matching, in.x.view, index{10}, in.pairs.view, matching_options{.always = {1}});
  token_lists const even({{0, 2, 4}, {0}}, 3), odd({{1, 3}, {1, 5}}, 2);
  std::vector<std::int32_t> best(samples * 3);
  check("most_similar", most_similar, in.x.view, even.view, odd.view, tern::view(best.data(), samples, 3), merged.slice(1, 0, 3));
  check("pool_grid", pool_grid, in.x.view, shape<2>{{rows, columns}}, in.numbers(6), shape<2>{{2, 3}});
  std::vector<std::int32_t> const near(samples * tokens * 2, 3);
  check("mix_tokens", mix_tokens, tern::view(near.data(), samples, tokens, 2), tern::view(in.metric.data(), samples, tokens, 2),
        in.numbers(few), in.x.view);
  std::vector<std::int32_t> labels(tokens);
  check("grid_components", without_policy{grid_components}, tern::view(in.keys.data(), tokens, channels), shape<2>{{rows, columns}}, 9.f,
        tern::view(labels));
  own_map next(samples, tokens), whole(samples, tokens);
  check("map_kept", without_policy{[](auto const&... a) { map_kept(a...); }}, kept, next.view);
  in.pairs.numbers = {0, 0};
  check("map_merged", without_policy{[](auto const&... a) { map_merged(a...); }}, in.pairs.view, next.view);
  check("chain_maps", without_policy{[](auto const&... a) { chain_maps(a...); }}, in.map.view, next.view, whole.view);
}

template <class T>
void check_matching_systems() {
  inputs<T> in;
  auto const scores = inputs<T>::row(std::as_const(in.scores));
  auto const merged = inputs<T>::row(in.merged);
  auto const sizes = inputs<T>::row(in.ones);
  auto const metric = in.directions();
  matching_options const options{.always = {1}};
  auto const move = moved{in.x.view, in.part(tokens - 10)};
  check("tome", tome, metric, index{10}, options, in.map.view, sizes, merged, move);
  check("turbo", turbo, metric, scores, 0.1f, index{10}, options, in.map.view, sizes, merged, move);
  check("simvlg", simvlg, in.by_head(), index{10}, in.map.view, sizes, merged, move);
  pyra_weights const learned{in.learned(10), in.learned(channels), in.learned(channels), in.learned(channels)};
  check("pyra", pyra, metric, learned, options, in.map.view, sizes, merged, in.x.view, in.part(tokens - 10));
  check("diffrate", diffrate, in.x.view, scores, index{50}, index{30}, in.map.view, sizes, merged, in.part(30));
  check("aim_merge", aim_merge, in.x.view, index{20}, in.map.view, in.part(20));
  check("aim_prune", aim_prune, scores, in.always.view, 0.5, in.kept.view);
}

template <class T>
void check_other_systems() {
  inputs<T> in;
  auto const scores = inputs<T>::row(std::as_const(in.scores));
  auto const merged = inputs<T>::row(in.merged);
  shape<2> const grid{{rows, columns}}, small{{2, 3}};
  index const clusters = 6, d = 8;
  tensor_view<float const, 3> const seeds = tern::view(in.metric.data(), samples, clusters, channels);
  check("glmix_gather", glmix_gather, in.x.view, seeds, 4.f, in.numbers(clusters));
  std::vector<float> image(static_cast<std::size_t>(samples * tokens * channels));
  auto const y = tern::view(image.data(), samples, tokens, channels);
  check("glmix_dispatch", glmix_dispatch, in.x.view, seeds, 4.f, seeds, y);
  tensor_view<float const, 3> const x = tern::view(in.keys.data(), samples, tokens, channels);
  expediting_options const how{.iterations = 2, .reach = 1, .nearest = 4};
  check("expediting_cluster", expediting_cluster, x, grid, how, in.numbers(clusters), small);
  check("expediting_reconstruct", expediting_reconstruct, x, seeds, seeds, how, y);
  check("sit", sit, in.x.view,
        sit_weights{in.learned(channels), in.learned(channels), in.learned(d, channels), in.learned(d), in.learned(few, d)},
        in.numbers(few));
  auto const q = in.by_head(), short_q = in.by_head(5);
  check("stvit_refine", stvit_refine, short_q, short_q, q, short_q, q, in.out_by_head(5));
  check("stvit_recover", stvit_recover, q, short_q, short_q, in.out_by_head());
  auto const list = tern::view(static_cast<std::int32_t const*>(in.kept.view.row(0)), in.kept.view.count(0));
  check("lemo_attention", lemo_attention, q[0], q[0], q[0], in.out_by_head()[0], list);
  std::vector<float> const lse(samples * heads * tokens, 6.f);
  auto const sums = tern::view(lse.data(), samples, heads, tokens);
  check("attention_received", attention_received, q, q, sums, query_range{0, tokens}, merged);
  check("attention_received of few", attention_received, q, q, sums, query_range{0, 8, 2}, merged);
  check("attention_received of weights", attention_received, sums, tokens, merged);
  check("evad", evad, q, q, sums, index{12}, 0.5, 2.f, merged, in.kept.view);
  check("aim_importance", aim_importance, q, q, merged);
  select_tokens(scores, few, protect{}, in.kept.view);
  map_kept(in.kept.view, in.map.view, others::together);
  check("lemo_matmul", lemo_matmul, in.x.view[0], list, in.learned(channels, channels), in.numbers(tokens)[0]);
  check("ia_red2", ia_red2, q, tern::view(in.metric.data(), samples, heads, dim), 0.5f, protect{1}, merged, in.kept.view);
  std::vector<std::int32_t> labels(samples * tokens), counts(samples);
  check("showui", showui, in.x.view, grid, 9.f, 0.5, tern::view(labels.data(), samples, tokens), in.kept.view);
  toc3d_weights const learned{in.learned(d, channels), in.learned(d), in.learned(2, 4), in.learned(2)};
  check("toc3d_scores", toc3d_scores, in.x.view, learned, tern::view(in.metric.data(), samples, 4, d), merged);
  check("toc3d_compress", toc3d_compress, in.x.view, scores, few, in.kept.view, in.map.view, in.part(few + 1));
  token_tensor<T> const done(in.r, samples, few + 1, channels);
  check("toc3d_restore", toc3d_restore, in.kept.view, in.map.view, in.part(few + 1), done.view, in.x.view);
  check("integrate_and_fire", integrate_and_fire, in.x.view, scores, in.numbers(tokens), tern::view(counts));
}

}  // namespace

TEST_CASE("calls on tokens: a workspace of the size asked for serves, and the second call allocates nothing", "[tokens]") {
  check_parts<float>();
  check_parts<bf16>();
}
TEST_CASE("systems that match tokens: a workspace of the size asked for serves, and the second call allocates nothing", "[tokens]") {
  check_matching_systems<float>();
  check_matching_systems<f16>();
}
TEST_CASE("systems on tokens: a workspace of the size asked for serves, and the second call allocates nothing", "[tokens]") {
  check_other_systems<float>();
  check_other_systems<bf16>();
}

}  // namespace tern::test
