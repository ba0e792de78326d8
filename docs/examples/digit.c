/* Names the digit in a picture of 28 x 28 float32 pixels.
 *
 *     tilewright compile mnist.onnx -o mnist.so
 *     cc digit.c mnist.so -Wl,-rpath,. -o digit
 *     ./digit picture.f32
 */
#include "mnist.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static float picture[MNIST_INPUT_X_SIZE], scores[MNIST_OUTPUT_Y_SIZE];
    mnist_inputs inputs;
    mnist_outputs outputs;
    char *memory, *workspace;
    int32_t code;
    int digit, best = 0;
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;

    if (file == NULL || fread(picture, sizeof picture, 1, file) != 1) {
        fprintf(stderr, "usage: digit picture.f32\n");
        return 2;
    }
    fclose(file);

    /* One workspace serves any number of calls, one at a time. malloc aligns to less than it needs. */
    memory = malloc(MNIST_WORKSPACE_BYTES + MNIST_ALIGNMENT);
    if (memory == NULL)
        return 1;
    workspace = memory + (MNIST_ALIGNMENT - (uintptr_t)memory % MNIST_ALIGNMENT) % MNIST_ALIGNMENT;

    inputs.x = picture;
    outputs.y = scores;
    code = mnist_run(&inputs, &outputs, workspace);
    free(memory);
    if (code != MNIST_OK) {
        fprintf(stderr, "mnist_run: %s\n", mnist_error_text(code));
        return 1;
    }
    for (digit = 1; digit < MNIST_OUTPUT_Y_SIZE; digit++)
        if (scores[digit] > scores[best])
            best = digit;
    printf("%d with %.3f\n", best, scores[best]);
    return 0;
}
