// Names in messages of the checks that operations share. An entry may define its own before it includes anything.
#pragma once

#ifndef DIMORPH_OPERATION
#define DIMORPH_OPERATION "attention"
#endif

// The argument whose device is that of all others.
#ifndef DIMORPH_FIRST_ARGUMENT
#define DIMORPH_FIRST_ARGUMENT "q"
#endif
