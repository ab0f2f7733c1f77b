// SPDX-License-Identifier: Apache-2.0
#pragma once
/// @file examples/common/mapped_file.hpp
/// A file mapped into memory for reading (POSIX): weights are paged in as they are used, and shared between processes.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string>
#include <system_error>

namespace common {

class mapped_file {
 public:
  explicit mapped_file(std::string const& path) {
    int const file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw std::system_error(errno, std::generic_category(), path);
    struct stat status {};
    if (fstat(file, &status) == 0 && status.st_size > 0) {
      size_ = static_cast<std::size_t>(status.st_size);
      data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    }
    int const problem = status.st_size == 0 ? EINVAL : errno;
    close(file);
    if (data_ == MAP_FAILED) throw std::system_error(problem, std::generic_category(), path);
    madvise(data_, size_, MADV_WILLNEED);
  }
  mapped_file(mapped_file const&) = delete;
  mapped_file& operator=(mapped_file const&) = delete;
  ~mapped_file() { munmap(data_, size_); }

  void const* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void* data_ = MAP_FAILED;
  std::size_t size_ = 0;
};

}  // namespace common
