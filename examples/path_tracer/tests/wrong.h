// A scene that lacks what a scene has.
#pragma once
#include "trace.h"

template <typename Params>
struct Wrong : SceneDefaults<Wrong<Params>> {
  HD explicit Wrong(const Params&) {}
};
