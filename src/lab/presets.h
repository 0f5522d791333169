// Presets: attention problems of known models under their names, from data/presets.json.
//
//   headwise bench --preset llama-3-70b --seq 4096
//   preset=llama-3-8b,llama-3-70b seq=1024..8192*2        as a line of a suite
//
// `words` say what the model is; words given beside the preset take their place. `typical` words say how it
// is commonly run, and count only where nothing else does.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lab/axes.h"

namespace headwise::lab {

struct Preset {
  std::string name;           // "llama-3-70b"
  std::string title;          // "LLaMA 3 70B"
  std::vector<Word> words;    // heads, kv-heads, head-dim, ...
  std::vector<Word> typical;  // seq, batch, dtype, ...
  std::string source;         // where the sizes stand, and against what they were checked
  std::string note;           // what differs from the whole model; may be empty
};

// `where` stands in messages: "presets.json: llama-3-70b: unknown word 'haeds'; did you mean 'heads'?"
Result<std::vector<Preset>> parse_presets(std::string_view json, std::string_view where);
// Those of the data directory, in the file's order; read once.
const Result<std::vector<Preset>>& presets();
// Takes "deepseek_v3" for "deepseek-v3". Did-you-mean where there is none of that name.
Result<const Preset*> find_preset(std::string_view name);

}  // namespace headwise::lab
