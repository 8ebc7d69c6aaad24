/* Which kinds of kernels this processor runs, the fastest first. Used when a model is made. */
#include "kernels.h"

#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

typedef struct { const Kernels *kernels; int (*runs)(void); } Kind;

extern const Kernels person2_c;
static int always(void) { return 1; }

#if defined(__x86_64__)
#include <cpuid.h>
extern const Kernels person2_avx512, person2_avxvnni, person2_avx2;

/* Which registers the system saves on a context switch. */
static unsigned saved(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* OSXSAVE */
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static int avx2(void)
{
    unsigned a, b, c, d;
    if ((saved() & 6) != 6) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 12 & c >> 29 & 1)) return 0; /* FMA, F16C */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 5 & 1;
}

static int avxvnni(void)
{
    unsigned a, b, c, d;
    return avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}

static int avx512(void)
{
    unsigned a, b, c, d;
    if (!avx2() || (saved() & 0xe6) != 0xe6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return b >> 16 & b >> 17 & b >> 30 & b >> 31 & c >> 11 & 1; /* F, DQ, BW, VL, VNNI */
}

static const Kind kinds[] = {
    {&person2_avx512, avx512}, {&person2_avxvnni, avxvnni}, {&person2_avx2, avx2}, {&person2_c, always}};

#elif defined(__aarch64__)
extern const Kernels person2_neon, person2_i8mm;

#if defined(__APPLE__)
#include <sys/sysctl.h>
static int has(const char *name)
{
    int found = 0;
    size_t size = sizeof found;
    return !sysctlbyname(name, &found, &size, 0, 0) && found;
}
static int neon(void) { return has("hw.optional.arm.FEAT_DotProd"); }
static int i8mm(void) { return neon() && has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
#include <sys/auxv.h>
static int neon(void) { return getauxval(AT_HWCAP) >> 20 & 1; }             /* HWCAP_ASIMDDP */
static int i8mm(void) { return neon() && getauxval(AT_HWCAP2) >> 13 & 1; } /* HWCAP2_I8MM */
#else
static int neon(void) { return 0; }
static int i8mm(void) { return 0; }
#endif

static const Kind kinds[] = {{&person2_i8mm, i8mm}, {&person2_neon, neon}, {&person2_c, always}};

#else
static const Kind kinds[] = {{&person2_c, always}};
#endif

enum { COUNT = sizeof kinds / sizeof *kinds };

/* The kernels called `name`, or the fastest for `auto`; 0 where this processor does not have them. */
EXPORT const Kernels *person2_kernels(const char *name)
{
    int any = !strcmp(name, "auto");
    for (int i = 0; i < COUNT; i++)
        if ((any || !strcmp(name, kinds[i].kernels->name)) && kinds[i].runs()) return kinds[i].kernels;
    return 0;
}
