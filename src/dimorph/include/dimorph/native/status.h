/* The results of the C functions of a package that `dimorph build --cmake` makes. */
#ifndef DIMORPH_STATUS_H
#define DIMORPH_STATUS_H

enum dimorph_status {
  DIMORPH_OK = 0,
  DIMORPH_VALUE_ERROR = 1,
  DIMORPH_TYPE_ERROR = 2,
  DIMORPH_INDEX_ERROR = 3,
  DIMORPH_MEMORY_ERROR = 4,
  DIMORPH_NOT_IMPLEMENTED = 5,
  DIMORPH_RUNTIME_ERROR = 6,
  DIMORPH_SPECIALIZATION_MISMATCH = 7, /* an axis with one value got another one */
  DIMORPH_MISSING_SPECIALIZATION = 8,  /* the value was not built; the message names it */
  DIMORPH_LOAD_ERROR = 9               /* an object of the package cannot be loaded */
};

#endif
