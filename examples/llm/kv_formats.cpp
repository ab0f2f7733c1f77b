// SPDX-License-Identifier: Apache-2.0
// Stores that keep every token, in fewer bits.
#include "kv_store.hpp"

#include <tern/attention.hpp>
#include <tern/cache/kv_tiers.hpp>

namespace llm {

using tern::index;

namespace {

template <class K, class V>
class format_store : public kv_store {
 public:
  format_store(kv_model const& m, tern::cpu_policy const& policy)
      : policy_(policy), cache_({.layers = m.layers, .kv_heads = m.kv_heads, .dim = m.dim}), sequence_(cache_.open()) {}
  void append(index layer, rows k, rows v) override { cache_.append(policy_, sequence_, layer, k, v); }
  void attend(index layer, rows q) override {
    tern::attention(policy_, q.expanded(), cache_.keys(sequence_, layer), cache_.values(sequence_, layer), q.expanded(), tern::causal{});
  }
  void truncate(index position) override { cache_.truncate(sequence_, position); }
  index bytes() const override { return cache_.bytes(); }

 private:
  tern::cpu_policy policy_;
  tern::kv_cache<K, V> cache_;
  std::int32_t sequence_;
};

/// KIVI: 2 bits behind the latest tokens.
class two_bit_store : public kv_store {
 public:
  two_bit_store(kv_model const& m, tern::cpu_policy const& policy)
      : policy_(policy), tiers_({.layers = m.layers, .kv_heads = m.kv_heads, .dim = m.dim}, 128), sequence_(tiers_.open()) {}
  void append(index layer, rows k, rows v) override { tiers_.append(policy_, sequence_, layer, k, v); }
  void attend(index layer, rows q) override { tiers_.attend(policy_, sequence_, layer, q, q); }
  void truncate(index position) override { tiers_.truncate(policy_, sequence_, position); }
  index bytes() const override { return tiers_.bytes(); }

 private:
  tern::cpu_policy policy_;
  tern::kv_tiers<tern::kv_cache<tern::formats::keys2, tern::formats::values2>, tern::kv_cache<tern::f16>> tiers_;
  std::int32_t sequence_;
};

/// Another store behind a Hadamard rotation of rows: H q . H k = q . k, and H undoes itself.
template <class Store>
class rotated_store : public kv_store {
 public:
  rotated_store(kv_model const& m, tern::cpu_policy const& policy) : policy_(policy), inner_(m, policy) {}
  void append(index layer, rows k, rows v) override {
    tern::hadamard(policy_, k, k);
    tern::hadamard(policy_, v, v);
    inner_.append(layer, k, v);
  }
  void attend(index layer, rows q) override {
    tern::hadamard(policy_, q, q);
    inner_.attend(layer, q);
    tern::hadamard(policy_, q, q);
  }
  void truncate(index position) override { inner_.truncate(position); }
  index bytes() const override { return inner_.bytes(); }

 private:
  tern::cpu_policy policy_;
  Store inner_;
};

}  // namespace

std::unique_ptr<kv_store> make_format_store(std::string_view name, kv_model const& model, tern::cpu_policy const& policy) {
  using namespace tern::formats;
  using four_bits = format_store<keys4, values4>;
  using codes = format_store<e8p, e8p>;
  if (name == "q8") return std::make_unique<format_store<keys8, values8>>(model, policy);
  if (name == "q8v4") return std::make_unique<format_store<keys8, values4>>(model, policy);
  if (name == "q4") return std::make_unique<four_bits>(model, policy);
  if (name == "q4-rotated") return std::make_unique<rotated_store<four_bits>>(model, policy);
  if (name == "codes") return std::make_unique<codes>(model, policy);
  if (name == "codes-rotated") return std::make_unique<rotated_store<codes>>(model, policy);
  if (name == "kivi") return std::make_unique<two_bit_store>(model, policy);
  if (name == "kivi-rotated") return std::make_unique<rotated_store<two_bit_store>>(model, policy);
  return nullptr;
}

}  // namespace llm
