// Errors as values. The library never prints, throws, aborts or exits: what can fail returns a
// Status or a Result<T>. Code that prefers exceptions wraps a call in headwise::check().
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace [[gnu::visibility("default")]] headwise {

enum class StatusCode : int {
  ok = 0,
  invalid_argument,  // the caller's arguments contradict each other or the rules
  unsupported,       // a valid call that the forced kernel, or no kernel, can run
  out_of_memory,
  unavailable,  // a device, backend or file that this machine or build does not have
  internal,     // a defect of Headwise
};

constexpr std::string_view name(StatusCode code) {
  switch (code) {
    case StatusCode::ok: return "ok";
    case StatusCode::invalid_argument: return "invalid_argument";
    case StatusCode::unsupported: return "unsupported";
    case StatusCode::out_of_memory: return "out_of_memory";
    case StatusCode::unavailable: return "unavailable";
    case StatusCode::internal: return "internal";
  }
  return "unknown";
}

// Success, or a code and a message that names the argument, what was expected, what came, and
// what to do.
class [[nodiscard]] Status {
 public:
  Status() noexcept = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status invalid_argument(std::string message) {
    return {StatusCode::invalid_argument, std::move(message)};
  }
  static Status unsupported(std::string message) { return {StatusCode::unsupported, std::move(message)}; }
  static Status out_of_memory(std::string message) { return {StatusCode::out_of_memory, std::move(message)}; }
  static Status unavailable(std::string message) { return {StatusCode::unavailable, std::move(message)}; }
  static Status internal(std::string message) { return {StatusCode::internal, std::move(message)}; }

  [[nodiscard]] bool ok() const noexcept { return code_ == StatusCode::ok; }
  [[nodiscard]] StatusCode code() const noexcept { return code_; }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

// A T, or the Status that says why there is none. Reading the value of a failed Result throws
// std::bad_variant_access; test ok() first.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {
    if (std::get<1>(state_).ok()) {
      std::get<1>(state_) = Status::internal("a Result was made from a successful Status");
    }
  }

  [[nodiscard]] bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

  [[nodiscard]] Status status() const { return ok() ? Status() : std::get<1>(state_); }

 private:
  std::variant<T, Status> state_;
};

// What check() throws: a Status as an exception.
class Error : public std::runtime_error {
 public:
  explicit Error(const Status& status)
      : std::runtime_error(std::string(name(status.code())) + ": " + status.message()),
        code_(status.code()) {}
  [[nodiscard]] StatusCode code() const noexcept { return code_; }

 private:
  StatusCode code_;
};

inline void check(const Status& status) {
  if (!status.ok()) throw Error(status);
}
template <class T>
T check(Result<T> result) {
  if (!result.ok()) throw Error(result.status());
  return *std::move(result);
}

}  // namespace headwise
