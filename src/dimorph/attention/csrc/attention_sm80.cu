// The sm80 family's device code: attention for one element type, one pair of head dims and one variant, with mma.sync,
// ldmatrix and cp.async. It also runs on newer GPUs.
#include "attention_sm80_config.h"

#include <dimorph/attention/variants.h>

#include "problem.h"

#include "sm80/params.h"

#include "sm80/ptx.h"

#include "sm80/block.h"

#include "sm80/copy.h"

#include "sm80/multiply.h"

#include "sm80/softmax.h"

#include "sm80/nonfinite.h"

#include "sm80/epilogue.h"

#include "sm80/forward.h"

#include "sm80/merge.h"
