// Headwise, all of it.
#pragma once

#include "headwise/alibi.h"
#include "headwise/attention.h"
#include "headwise/cache.h"
#include "headwise/device.h"
#include "headwise/dtype.h"
#include "headwise/kernels.h"
#include "headwise/merge.h"
#include "headwise/rotary.h"
#include "headwise/status.h"
#include "headwise/tensor.h"
