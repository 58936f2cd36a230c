#pragma once
enum class Mode { ADD = 3, MUL = 7 };
