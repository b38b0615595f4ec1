// bcryptprimitives.dll for a wine that has none (before 8.9): its one function that Rust's standard library calls, to seed hash maps.
#include <windows.h>
#include <ntsecapi.h>

BOOL WINAPI DllMainCRTStartup(HINSTANCE library, DWORD reason, LPVOID reserved) {
  (void)library, (void)reason, (void)reserved;
  return TRUE;
}

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T length) {
  while (length > 0) {
    ULONG part = length < 0x10000 ? (ULONG)length : 0x10000;
    if (!RtlGenRandom(bytes, part)) return FALSE;
    bytes += part;
    length -= part;
  }
  return TRUE;
}
