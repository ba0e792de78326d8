// Names the digit in a picture, with the general form of a call: several threads, and the time of every kernel.
//
//     tilewright compile mnist.onnx -o mnist.so
//     c++ digit.cpp mnist.so -Wl,-rpath,. -o digit
//     ./digit picture.f32
#include "mnist.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

class Classifier {
public:
    explicit Classifier(std::int32_t threads)
    {
        if (const char *feature = mnist_missing_feature())
            throw std::runtime_error(std::string("this processor lacks ") + feature);
        context_.struct_size = sizeof context_;
        context_.threads = threads;
        context_.workspace_bytes = mnist_workspace_bytes(nullptr, threads);
        memory_.resize(context_.workspace_bytes + MNIST_ALIGNMENT);
        void *start = memory_.data();
        std::size_t room = memory_.size();
        context_.workspace = std::align(MNIST_ALIGNMENT, context_.workspace_bytes, start, room);
        context_.profile = [](std::int32_t kernel, std::int64_t ns, void *user) {
            (*static_cast<std::vector<std::int64_t> *>(user))[kernel] = ns;
        };
        context_.user = &times_;
    }

    std::vector<float> operator()(std::vector<float> picture)
    {
        std::vector<float> scores(MNIST_OUTPUT_Y_SIZE);
        std::int64_t dims[MNIST_INPUT_X_RANK] = {1, 1, 28, 28};
        tw_tensor input = {picture.data(), dims, static_cast<std::int64_t>(picture.size() * sizeof(float))};
        tw_tensor output = {scores.data(), nullptr, static_cast<std::int64_t>(scores.size() * sizeof(float))};
        if (std::int32_t code = mnist_call(&input, &output, &context_))
            throw std::runtime_error(mnist_error_text(code));
        return scores;
    }

    const std::vector<std::int64_t> &times() const { return times_; }

private:
    tw_context context_ = {};
    std::vector<char> memory_;
    std::vector<std::int64_t> times_ = std::vector<std::int64_t>(MNIST_KERNELS);
};

}  // namespace

int main(int argc, char **argv)
try {
    std::vector<float> picture(MNIST_INPUT_X_SIZE);
    std::ifstream file(argc == 2 ? argv[1] : "", std::ios::binary);
    if (!file.read(reinterpret_cast<char *>(picture.data()), picture.size() * sizeof(float)))
        throw std::runtime_error("usage: digit picture.f32");
    Classifier classify(2);
    std::vector<float> scores = classify(picture);
    auto best = std::max_element(scores.begin(), scores.end());
    std::printf("%d with %.3f\n", static_cast<int>(best - scores.begin()), *best);
    auto slowest = std::max_element(classify.times().begin(), classify.times().end());
    std::fprintf(stderr, "kernel %d took longest\n", static_cast<int>(slowest - classify.times().begin()));
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
