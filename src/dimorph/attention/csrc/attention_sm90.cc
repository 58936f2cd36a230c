// The entry of attention for the sm90 family.
#include <dimorph/entry.h>

#include "attention_sm90_config.h"

#include "sm90/boxes.h"

namespace family = dimorph::attention::sm90;

#include "gpu/entry.h"

DIMORPH_EXPORT(attention)
