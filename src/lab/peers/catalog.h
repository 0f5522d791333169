// Which peers there are: other people's attention, one file each in the peers' folder (docs/peers.md).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "headwise/device.h"
#include "headwise/status.h"

namespace headwise::lab {

struct PeerInfo {
  std::string name;                  // "torch.flash": the file torch/flash.py
  std::string set;                   // "torch": peers that share an environment
  std::vector<std::string> devices;  // kinds its file names: "cpu", "cuda"
  std::string absent;                // why there is no file (peers/absent.txt); empty: there is one
  std::string install;               // what would bring it, where it is absent
  [[nodiscard]] bool runs_on(DeviceKind kind) const;
};

// The folder of worker.py: peers/ of the data directory, or beside it in a source tree.
std::string peers_directory();
// The folder of the peers' files: the same, or what HEADWISE_PEERS names.
std::string peer_files_directory();
// All peers, those with a file first, by name.
const std::vector<PeerInfo>& peers();

// Peers that a name of --peers means: "all", a set ("torch"), a glob ("*.flash") or a peer's own name. Whole
// sets and globs mean those that have a file and run on such a device; a full name means that peer whatever
// it can. invalid_argument with the nearest match where there is none.
Result<std::vector<const PeerInfo*>> find_peers(std::string_view name, DeviceKind kind);

// The Python that runs a set's peers: `given` (--peer-python), else the set's environment in the data
// directory. unavailable, with the command that makes it, where there is none.
Result<std::string> peer_python(const std::string& set, const std::string& given);

}  // namespace headwise::lab
