// SPDX-License-Identifier: Apache-2.0
// A room: a sound is convolved with three seconds of decaying noise, in blocks as they would come from a microphone, and a prefix is
// checked against the sum of the definition. reverberation [SOUND.wav [RESULT.wav]]; without a sound, a plucked string is made.

#include <tern/conv.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

namespace {

struct sound {
  std::vector<float> samples;
  int rate = 48000;
};

std::uint32_t little_endian(std::vector<char> const& bytes, std::size_t at, int count) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i)
    value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[at + static_cast<std::size_t>(i)])) << 8 * i;
  return value;
}

/// The first channel of a WAV file of 16-bit samples; nothing if it is no such file.
sound read_wav(char const* path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> const bytes{std::istreambuf_iterator<char>(file), {}};
  sound s;
  if (bytes.size() < 12 || std::memcmp(bytes.data(), "RIFF", 4) != 0 || std::memcmp(bytes.data() + 8, "WAVE", 4) != 0) return s;
  std::size_t channels = 0;
  for (std::size_t at = 12; at + 8 <= bytes.size();) {
    std::size_t const size = std::min<std::size_t>(little_endian(bytes, at + 4, 4), bytes.size() - at - 8);
    if (std::memcmp(bytes.data() + at, "fmt ", 4) == 0 && size >= 16 && little_endian(bytes, at + 22, 2) == 16) {
      std::uint32_t const rate = little_endian(bytes, at + 12, 4);
      if (little_endian(bytes, at + 8, 2) != 1 || rate < 1000 || rate > 768000) return s;
      channels = little_endian(bytes, at + 10, 2);
      s.rate = static_cast<int>(rate);
    }
    if (std::memcmp(bytes.data() + at, "data", 4) == 0 && channels > 0)
      for (std::size_t i = 0; i + 2 * channels <= size; i += 2 * channels)
        s.samples.push_back(static_cast<float>(static_cast<std::int16_t>(little_endian(bytes, at + 8 + i, 2))) / 32768.f);
    at += 8 + size + size % 2;
  }
  return s;
}

void write_wav(char const* path, sound const& s) {
  std::ofstream file(path, std::ios::binary);
  auto const put = [&](std::uint32_t value, int count) {
    for (int i = 0; i < count; ++i) file.put(static_cast<char>(value >> 8 * i & 255));
  };
  auto const size = static_cast<std::uint32_t>(2 * s.samples.size());
  file << "RIFF";
  put(36 + size, 4);
  file << "WAVEfmt ";
  for (auto const& [value, count] : {std::pair<std::uint32_t, int>{16, 4},
                                     {1, 2},
                                     {1, 2},
                                     {static_cast<std::uint32_t>(s.rate), 4},
                                     {static_cast<std::uint32_t>(2 * s.rate), 4},
                                     {2, 2},
                                     {16, 2}})
    put(value, count);
  file << "data";
  put(size, 4);
  for (float e : s.samples) put(static_cast<std::uint16_t>(static_cast<std::int16_t>(std::lround(std::clamp(e, -1.f, 1.f) * 32767.f))), 2);
}

/// Five seconds of a string plucked twice a second.
sound pluck() {
  sound s;
  std::mt19937 random(1);
  std::vector<float> string(218);
  for (int i = 0; i < 5 * s.rate; ++i) {
    if (i % (s.rate / 2) == 0)
      for (float& e : string) e = std::uniform_real_distribution<float>(-0.3f, 0.3f)(random);
    float& here = string[static_cast<std::size_t>(i) % string.size()];
    s.samples.push_back(here);
    here = 0.498f * (here + string[static_cast<std::size_t>(i + 1) % string.size()]);
  }
  return s;
}

}  // namespace

int main(int argc, char** argv) {
  sound dry = argc > 1 ? read_wav(argv[1]) : pluck();
  if (dry.samples.empty()) {
    std::fprintf(stderr, "%s is no WAV file of 16-bit samples at a usual rate\n", argv[1]);
    return 1;
  }
  constexpr tern::index block = 512;
  dry.samples.resize((dry.samples.size() + block - 1) / block * block);
  auto const n = static_cast<tern::index>(dry.samples.size()), taps = static_cast<tern::index>(3 * dry.rate);

  std::mt19937 random(2);
  std::vector<float> room(static_cast<std::size_t>(taps));
  for (tern::index j = 0; j < taps; ++j)
    room[static_cast<std::size_t>(j)] =
        std::normal_distribution<float>(0.f, 0.02f)(random) * std::exp(-2.f * static_cast<float>(j) / static_cast<float>(dry.rate));
  room[0] = 0.5f;

  sound wet{std::vector<float>(dry.samples.size()), dry.rate};
  tern::long_conv_stream stream(tern::cpu, tern::view(room, 1, taps), block);
  auto const start = std::chrono::steady_clock::now();
  for (tern::index i = 0; i < n; i += block)
    stream.step(tern::cpu, tern::view(dry.samples.data() + i, 1, block), tern::view(wet.samples.data() + i, 1, block));
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  double const length = static_cast<double>(n) / dry.rate;

  // The formula, on a prefix.
  double worst = 0, norm = 0, taps_norm = 0;
  for (float e : room) taps_norm += static_cast<double>(e) * static_cast<double>(e);
  for (float e : dry.samples) norm += static_cast<double>(e) * static_cast<double>(e);
  for (tern::index i = 0; i < std::min<tern::index>(n, 20000); i += 7) {
    double y = 0;
    for (tern::index j = 0; j <= std::min(i, taps - 1); ++j)
      y += static_cast<double>(room[static_cast<std::size_t>(j)]) * static_cast<double>(dry.samples[static_cast<std::size_t>(i - j)]);
    worst = std::max(worst, std::abs(y - static_cast<double>(wet.samples[static_cast<std::size_t>(i)])));
  }
  double const bound = stream.error() * std::sqrt(norm * taps_norm);
  if (argc > 2) write_wav(argv[2], wet);
  std::printf("%.2f s of sound in a room of %td taps, in blocks of %td samples: %.1f ms, %.0f times faster than it sounds\n", length, taps,
              block, 1e3 * seconds, length / seconds);
  std::printf("largest difference to the sum of the definition: %.2g, allowed %.2g\n", worst, bound);
  return worst <= bound ? 0 : 1;
}
