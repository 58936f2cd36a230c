// How the producers load tiles: keys follow each other.
#pragma once
#include "../tile_loader.h"

namespace DIMORPH_CASE {

using PieceLoader = TileLoader;

}  // namespace DIMORPH_CASE
