"""From C++ text to units of compilation with content keys: a pure computation, without compiler or clock."""
