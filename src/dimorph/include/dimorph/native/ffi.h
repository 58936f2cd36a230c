// The functions that entries and cases take from tvm-ffi in Python, for programs without it. The build renames them in
// the objects of a package (DIMORPH_FFI), so that the two never meet where a process has both.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "../abi.h"
#include "thread.h"

namespace dimorph {
namespace native {

// A result that is more than a number: a tensor, a text, or several results. Counted like an object of tvm-ffi.
struct Object {
  int64_t users;
  DLManagedTensor* tensor;
  char* text;
  TVMFFIAny* items;
  int32_t count;
};

inline void* new_object() {
  auto* object = static_cast<Object*>(calloc(1, sizeof(Object)));
  if (object) object->users = 1;
  return object;
}

inline void drop(const TVMFFIAny& any);

inline void drop(Object* object) {
  if (!object || __atomic_sub_fetch(&object->users, 1, __ATOMIC_ACQ_REL)) return;
  if (object->tensor && object->tensor->deleter) object->tensor->deleter(object->tensor);
  for (int32_t i = 0; i < object->count; ++i) drop(object->items[i]);
  free(object->items);
  free(object->text);
  free(object);
}
inline void drop(const TVMFFIAny& any) {
  if (any.type_index >= kTVMFFIStaticObjectBegin) drop(reinterpret_cast<Object*>(any.v_obj));
}

// The names by which an entry raises errors (set_error in entry.h).
inline int status_of(const char* kind) {
  const struct {
    const char* kind;
    int status;
  } known[] = {{"ValueError", DIMORPH_VALUE_ERROR},
               {"TypeError", DIMORPH_TYPE_ERROR},
               {"IndexError", DIMORPH_INDEX_ERROR},
               {"MemoryError", DIMORPH_MEMORY_ERROR},
               {"NotImplementedError", DIMORPH_NOT_IMPLEMENTED},
               {"dimorph.SpecializationMismatch", DIMORPH_SPECIALIZATION_MISMATCH}};
  for (const auto& one : known)
    if (strcmp(kind, one.kind) == 0) return one.status;
  return DIMORPH_RUNTIME_ERROR;
}

}  // namespace native
}  // namespace dimorph

extern "C" {

// An error is the thread's as soon as it is made, and has no object.
DIMORPH_VISIBLE void DIMORPH_FFI(ErrorSetRaisedFromCStr)(const char* kind, const char* text) {
  using namespace dimorph::native;
  // The resolver has left its error already, and an entry only says that there is one.
  if (strcmp(kind, "dimorph.carried") == 0) return;
  Thread& error = this_thread();
  error.status = status_of(kind);
  snprintf(error.text, sizeof error.text, "%s", text);
}
DIMORPH_VISIBLE int DIMORPH_FFI(ErrorCreate)(const TVMFFIByteArray* kind, const TVMFFIByteArray* text,
                                             const TVMFFIByteArray*, TVMFFIObjectHandle* out) {
  DIMORPH_FFI(ErrorSetRaisedFromCStr)(kind->data, text->data);
  *out = nullptr;
  return 0;
}
DIMORPH_VISIBLE void DIMORPH_FFI(ErrorSetRaised)(TVMFFIObjectHandle) {}

DIMORPH_VISIBLE int DIMORPH_FFI(ObjectIncRef)(TVMFFIObjectHandle handle) {
  if (handle) __atomic_add_fetch(&static_cast<dimorph::native::Object*>(handle)->users, 1, __ATOMIC_RELAXED);
  return 0;
}
DIMORPH_VISIBLE int DIMORPH_FFI(ObjectDecRef)(TVMFFIObjectHandle handle) {
  dimorph::native::drop(static_cast<dimorph::native::Object*>(handle));
  return 0;
}

// Makes the function objects that Python calls; there are none here.
DIMORPH_VISIBLE int DIMORPH_FFI(FunctionCreate)(void*, TVMFFISafeCallType, void (*)(void*), TVMFFIObjectHandle*) {
  return -1;
}

DIMORPH_VISIBLE int DIMORPH_FFI(StringFromByteArray)(const TVMFFIByteArray* bytes, TVMFFIAny* out) {
  auto* object = static_cast<dimorph::native::Object*>(dimorph::native::new_object());
  if (object) object->text = strndup(bytes->data, bytes->size);
  out->type_index = kTVMFFIStr;
  out->zero_padding = 0;
  out->v_obj = reinterpret_cast<TVMFFIObject*>(object);
  return 0;
}

DIMORPH_VISIBLE int DIMORPH_FFI(TensorFromDLPack)(DLManagedTensor* from, int32_t, int32_t, TVMFFIObjectHandle* out) {
  auto* object = static_cast<dimorph::native::Object*>(dimorph::native::new_object());
  if (!object) {
    dimorph::native::fail(DIMORPH_MEMORY_ERROR, "no memory for the description of a result");
    return -1;
  }
  object->tensor = from;
  *out = object;
  return 0;
}

// Results are made by tvm-ffi's function "ffi.Array", and by no other.
DIMORPH_VISIBLE int DIMORPH_FFI(FunctionGetGlobal)(const TVMFFIByteArray*, TVMFFIObjectHandle* out) {
  *out = nullptr;
  return 0;
}
DIMORPH_VISIBLE int DIMORPH_FFI(FunctionCall)(TVMFFIObjectHandle, TVMFFIAny* items, int32_t count, TVMFFIAny* out) {
  auto* object = static_cast<dimorph::native::Object*>(dimorph::native::new_object());
  auto* copies = static_cast<TVMFFIAny*>(calloc(count, sizeof(TVMFFIAny)));
  if (!object || !copies) {
    free(object);
    free(copies);
    return -1;
  }
  object->items = copies;
  object->count = count;
  for (int32_t i = 0; i < count; ++i) {
    copies[i] = items[i];
    if (items[i].type_index >= kTVMFFIStaticObjectBegin) DIMORPH_FFI(ObjectIncRef)(items[i].v_obj);
  }
  out->type_index = kTVMFFIArray;
  out->zero_padding = 0;
  out->v_obj = reinterpret_cast<TVMFFIObject*>(object);
  return 0;
}

// Not of tvm-ffi: says where the functions above leave errors.
DIMORPH_VISIBLE dimorph::native::Thread* DIMORPH_FFI(Thread)() { return dimorph::native::own_thread(); }

DIMORPH_VISIBLE void* DIMORPH_FFI(EnvGetStream)(int32_t, int32_t) { return dimorph::native::this_thread().stream; }

}  // extern "C"
