/* Opens the certificates that CURL_CA_BUNDLE names where a program asks for those of the system by their fixed path.
 *
 * TensorFlow 1.x reads gs:// with a curl of its own, in which /etc/ssl/certs/ca-certificates.crt is written and which
 * obeys no variable. Preloaded (LD_PRELOAD) into a training process, this makes it trust the gateway, without root.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef FILE *(*opener)(const char *, const char *);

static const char FIXED[] = "/etc/ssl/certs/ca-certificates.crt";

static FILE *redirected(const char *name, const char *path, const char *mode) {
    opener next = (opener)dlsym(RTLD_NEXT, name);
    const char *bundle = getenv("CURL_CA_BUNDLE");
    int is_fixed = path != NULL && strcmp(path, FIXED) == 0;
    return next(is_fixed && bundle != NULL && *bundle ? bundle : path, mode);
}

FILE *fopen(const char *path, const char *mode) { return redirected("fopen", path, mode); }

FILE *fopen64(const char *path, const char *mode) { return redirected("fopen64", path, mode); }
