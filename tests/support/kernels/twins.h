#pragma once
#include "twins_config.h"

// Outside of the case's namespace and inline: the linker would merge these functions between objects if it could.
inline int twin() { return WIDTH; }
template <typename T>
T twin_template(T value) {
  return value * WIDTH;
}
struct Twin {
  static int counter() {
    static int count = WIDTH * 100;
    return count;
  }
  virtual ~Twin() = default;
  virtual int answer() { return WIDTH + 1; }
};
inline int twin_variable = WIDTH * 10000;
