// The entry of attention for the sm80 family.
#include <dimorph/entry.h>

#include "attention_sm80_config.h"

#include "sm80/steps.h"

namespace family = dimorph::attention::sm80;

#include "gpu/entry.h"

DIMORPH_EXPORT(attention)
