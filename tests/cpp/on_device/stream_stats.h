#pragma once

#include "device_call.h"
#include "hyperstreams/plan.h"
#include "hyperstreams/stream_stats.h"

namespace hyperstreams::cuda::testing {

inline Status stream_stats(StreamStatsArgs args, Stream) {
  if (args.dtype == DType::kFloat64 || args.y_dtype == DType::kFloat64) {
    return cuda::stream_stats(args, nullptr);
  }
  const int64_t tokens = args.tokens, width = args.width, size = stream_stats_size(args.n_streams);
  const int n = args.n_streams;
  const int64_t parts = plan_stream_stats(tokens, width, args.dtype, 1).owners.partials;
  DeviceCall call;
  args.x = call.input(args.x, tokens, n, width, args.dtype);
  args.y = call.input(args.y, tokens, width, args.y_dtype);
  args.h_pre = call.input(args.h_pre, tokens, n, DType::kFloat32);
  args.h_post = call.input(args.h_post, tokens, n, DType::kFloat32);
  args.h_res = call.input(args.h_res, tokens, n * n, DType::kFloat32);
  args.partials = call.scratch(args.partials, parts * size);
  args.stats = static_cast<double*>(call.output(args.stats, size, DType::kFloat64));
  return call.run([&](Stream stream) { return cuda::stream_stats(args, stream); });
}

}  // namespace hyperstreams::cuda::testing
