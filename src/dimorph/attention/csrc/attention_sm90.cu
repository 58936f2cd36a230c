// The sm90 family's device code: attention for one element type, one pair of head dims and one variant, with the copy
// engine (TMA) and the matrix instructions of warpgroups (wgmma), which GPUs of 9.0 have.
#include "attention_sm90_config.h"

#include <dimorph/attention/variants.h>

#include "problem.h"

#include "sm90/params.h"

#include "gpu/ptx.h"

#include "sm90/barriers.h"

#include "sm90/tma.h"

#include "sm90/wgmma.h"

#include "gpu/block.h"

#include "gpu/softmax.h"

#include "sm90/multiply.h"

#include "gpu/nonfinite.h"

#include "gpu/epilogue.h"

#include "sm90/ring.h"

#include "sm90/scheduler.h"

#include "sm90/copy.h"

#include "sm90/forward.h"

#include "gpu/merge.h"
