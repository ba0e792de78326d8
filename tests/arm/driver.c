/* Calls the model in a shared object through both entry points, for any model of one float input "x" and output "y".
 *
 *     driver net.so THREADS < x > y
 *
 * Ends with 0 and writes y; with 2 and a line on stderr if the library says that this processor will not do.
 */
#include "net.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float x[NET_INPUT_X_SIZE], y[NET_OUTPUT_Y_SIZE], again[NET_OUTPUT_Y_SIZE];

static void *symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);
    if (address == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return address;
}

static void check(int32_t code, const char *what)
{
    if (code != NET_OK) {
        fprintf(stderr, "%s: %d\n", what, (int)code);
        exit(1);
    }
}

int main(int count, char **words)
{
    void *library = count == 3 ? dlopen(words[1], RTLD_NOW) : NULL;
    uint32_t (*abi_version)(void);
    const char *(*missing_feature)(void);
    size_t (*workspace_bytes)(const int64_t *, int32_t);
    int32_t (*call)(const tw_tensor *, tw_tensor *, tw_context *);
    int32_t (*run)(const net_inputs *, const net_outputs *, void *);
    tw_tensor input, output;
    tw_context context;
    net_inputs inputs;
    net_outputs outputs;
    int64_t dims[NET_OUTPUT_Y_RANK];

    if (library == NULL) {
        fprintf(stderr, "%s\n", count == 3 ? dlerror() : "driver net.so THREADS");
        return 1;
    }
    *(void **)&abi_version = symbol(library, "net_abi_version");
    *(void **)&missing_feature = symbol(library, "net_missing_feature");
    *(void **)&workspace_bytes = symbol(library, "net_workspace_bytes");
    *(void **)&call = symbol(library, "net_call");
    *(void **)&run = symbol(library, "net_run");
    check(abi_version() == NET_ABI_VERSION ? NET_OK : NET_ERROR_ABI, "abi_version");
    if (fread(x, 1, sizeof x, stdin) != sizeof x)
        return 1;

    memset(&input, 0, sizeof input);
    memset(&output, 0, sizeof output);
    memset(&context, 0, sizeof context);
    input.data = x;
    output.data = y;
    output.dims = dims;
    output.capacity = sizeof y;
    context.struct_size = sizeof context;
    context.threads = atoi(words[2]);
    context.workspace_bytes = workspace_bytes(NULL, context.threads);
    context.workspace = aligned_alloc(64, (context.workspace_bytes + 64) & ~(size_t)63);
    if (missing_feature() != NULL) {
        fprintf(stderr, "missing: %s\n", missing_feature());
        check(call(&input, &output, &context) == NET_ERROR_CPU ? NET_OK : NET_ERROR_CPU, "call");
        return 2;
    }
    check(call(&input, &output, &context), "call");
    check(call(&input, &output, &context), "second call");
    inputs.x = x;
    outputs.y = again;
    check(run(&inputs, &outputs, context.workspace), "run");
    if (memcmp(y, again, sizeof y) != 0) {
        fprintf(stderr, "the two entry points differ\n");
        return 1;
    }
    return fwrite(y, 1, sizeof y, stdout) == sizeof y ? 0 : 1;
}
