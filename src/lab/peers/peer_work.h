// A peer in one case.
#pragma once

#include "lab/axes.h"
#include "lab/inputs.h"
#include "lab/peers/peer.h"
#include "lab/peers/shared_tensors.h"
#include "lab/verify.h"
#include "lab/work.h"

namespace headwise::lab {

// What the peers of a case share.
struct PeerCase {
  const Case& one;
  Inputs& inputs;
  const Reference& reference;
  SharedTensors& tensors;
  std::size_t last_level_cache_bytes = 0;
  double seconds = 120;  // for preparing, and for one call
};

class PeerWork final : public Work {
 public:
  PeerWork(Peer& peer, const PeerCase& shared) : peer_(peer), shared_(shared) {}
  ~PeerWork() override;

  Result<double> first_call(Row& row) override;
  [[nodiscard]] Verdict verdict(const Reference& reference) override;
  Status accept() override { return {}; }  // others need not give the same bits: they are judged again
  Result<Timed> time(std::int64_t calls, double lead_in_ms) override;
  Status check_outputs() override;
  void describe_timing(Row& row) const override;
  [[nodiscard]] std::string_view row_status_of(const Status& status) const override;
  [[nodiscard]] double lost_seconds() const override { return lost_seconds_; }

 private:
  Result<PeerReply> ask(const std::function<std::string(std::int64_t)>& request, double seconds);
  Status check_able() const;
  Status prepare(Row& row);
  Status fail(std::string_view row_status, std::string message);

  Peer& peer_;
  PeerCase shared_;
  std::string timer_, regime_, cache_method_;
  std::vector<double> clocks_mhz_;
  double call_ms_ = 0;
  double lost_seconds_ = 0;
  std::string_view failed_as_;
  bool prepared_ = false;
};

}  // namespace headwise::lab
