// CUDA implementation of the torch ops of boundary; their schemas are registered with the CPU ops.
#include "hyperstreams/boundary.h"

#include "../boundary_tensors.h"
#include "device.h"
#include "hyperstreams/plan.h"

namespace hyperstreams::torch_binding {
namespace {

/// Checks that every tensor that is there is on the device of x.
void require_inputs(const OnDevice& device, const char* op, const OptionalTensor& y,
                    const OptionalTensor& h_res, const OptionalTensor& h_post,
                    const OptionalTensor& write_bias, const OptionalTensor& phi,
                    const OptionalTensor& norm_weight, const OptionalTensor& alpha,
                    const OptionalTensor& bias, const OptionalTensor& read_weights) {
  const auto require = [&](const OptionalTensor& tensor, const char* argument) {
    if (tensor) device.require(*tensor, op, argument);
  };
  require(y, "y");
  require(h_res, "h_res");
  require(h_post, "h_post");
  require(write_bias, "write_bias");
  require(phi, "phi");
  require(norm_weight, "norm_weight");
  if (phi) {
    require(alpha, "alpha");
    require(bias, "bias");
  }
  require(read_weights, "read_weights");
}

cuda::BoundaryPlan plan_of(const BoundaryInputs& in) {
  return cuda::plan_boundary(
      cuda::boundary_shape(in.in.tokens, in.in.n_streams, in.in.width, in.in.dtype, in.settings(),
                           cuda::block_shared_limit()),
      1);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> boundary(
    const Tensor& x, const OptionalTensor& y, const OptionalTensor& h_res,
    const OptionalTensor& h_post, const OptionalTensor& write_bias, const OptionalTensor& phi,
    const OptionalTensor& norm_weight, const OptionalTensor& alpha, const OptionalTensor& bias,
    const OptionalTensor& read_weights, double eps, int64_t eps_position, int64_t map,
    const std::vector<int64_t>& settings, const std::vector<double>& constants) {
  const char* op = "boundary";
  const OnDevice device(x, op);
  require_inputs(device, op, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                 read_weights);
  const BoundaryInputs in(x, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                          read_weights, eps, eps_position, map, settings, constants, op);
  BoundaryResults results(in, plan_of(in).forward.size);
  BoundaryArgs args = results.args();
  args.workspace = static_cast<float*>(results.scratch.data());
  check_status(cuda::boundary_forward(args, device.stream()), op);
  return results.all();
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
boundary_backward(const Tensor& grad_x_out, const Tensor& grad_u, const Tensor& grad_h_pre,
                  const Tensor& grad_h_post, const Tensor& grad_h_res, const Tensor& x,
                  const OptionalTensor& y, const OptionalTensor& h_res,
                  const OptionalTensor& h_post, const OptionalTensor& write_bias,
                  const OptionalTensor& phi, const OptionalTensor& norm_weight,
                  const OptionalTensor& alpha, const OptionalTensor& bias,
                  const OptionalTensor& read_weights, const Tensor& logits, const Tensor& inv_rms,
                  const Tensor& h_pre, double eps, int64_t eps_position, int64_t map,
                  const std::vector<int64_t>& settings, const std::vector<double>& constants) {
  const char* op = "boundary_backward";
  const OnDevice device(x, op);
  require_inputs(device, op, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                 read_weights);
  const BoundaryInputs in(x, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                          read_weights, eps, eps_position, map, settings, constants, op);
  device.require(grad_u, op, "grad_u");
  if (in.write) device.require(grad_x_out, op, "grad_x_out");
  if (in.next) {
    device.require(grad_h_pre, op, "grad_h_pre");
    device.require(grad_h_post, op, "grad_h_post");
    if (in.next->has_h_res()) device.require(grad_h_res, op, "grad_h_res");
    device.require(logits, op, "logits");
    device.require(inv_rms, op, "inv_rms");
    device.require(h_pre, op, "h_pre");
  }
  const BoundaryScratchSizes sizes = {0, 0, 0, 0, plan_of(in).backward.size};
  BoundaryGradients gradients(in, sizes, grad_x_out, grad_u, grad_h_pre, grad_h_post, grad_h_res, y,
                              h_res, h_post, write_bias, phi, norm_weight, alpha, bias,
                              read_weights, logits, inv_rms, h_pre, op);
  BoundaryBackwardArgs args = gradients.args();
  args.workspace = static_cast<float*>(gradients.scratch.data());
  check_status(cuda::boundary_backward(args, device.stream()), op);
  return gradients.all();
}

}  // namespace
}  // namespace hyperstreams::torch_binding

STABLE_TORCH_LIBRARY_IMPL(hyperstreams, CUDA, m) {
  m.impl("_boundary", TORCH_BOX(&hyperstreams::torch_binding::boundary));
  m.impl("_boundary_backward", TORCH_BOX(&hyperstreams::torch_binding::boundary_backward));
}
