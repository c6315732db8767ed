// What a map is configured with, as plain numbers; every map gives them meaning in its own header.
#pragma once

namespace hyperstreams {

/// Which map turns mixer logits into h_res. Values are part of the torch ops' interface.
enum class MapKind : int {
  kIdentity = 0,
  kFree = 1,
  kSinkhorn = 2,
  kPermutation = 3,
  kKronecker = 4,
  kSpectral = 5,
  kCirculant = 6
};

/// `Mixer.fused_settings` of the Python mixer of the same name, in its order.
struct MapSettings {
  int ints[8];
  double floats[4];
};

/// What a map is given for one token beside its logits and matrix, in numbers.
struct MapSpace {
  int kept;    // scratch of every call
  int arrays;  // the rest of InterleavedScratch (arrays.h)
};

}  // namespace hyperstreams
