/* Faults that a test asks for by environment variables. Counting begins when a variable gets a new value; what stands behind a
 * '#' is only there to make a value new. */
#pragma once
#include <cuda.h>

namespace igc {

/* IGC_EMULATED_FAULT="1:40 0:7+:ECC_UNCORRECTABLE": the 40th kernel that device 1 executes ends in
 * CUDA_ERROR_ILLEGAL_ADDRESS, the 7th and all later ones of device 0 in CUDA_ERROR_ECC_UNCORRECTABLE. The caller makes the
 * error stick to the context. It is called once for each kernel. */
CUresult kernel_fault(int device);

/* IGC_EMULATED_NO_MEMORY="3": the third call that allocates something (a context, module, stream, event, graph, memory of a
 * device or of the host) answers CUDA_ERROR_OUT_OF_MEMORY; with "3+" all later ones too. It is called once for each. */
CUresult memory_fault();

/* IGC_EMULATED_DRIVER="11.4": the version of CUDA that the driver answers, in place of that of its header. */
int driver_version();

} // namespace igc
