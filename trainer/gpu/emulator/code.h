/* The driver's view of machine code: which kernels it has, for which device. */
#pragma once
#include <map>
#include <string>

namespace igc {

bool is_elf(const void *image);

/* read_elf reads the machine code that ptxas writes (an ELF file of NVIDIA's machine). sm is 90 for sm_90; entries has the
 * kernels with their bytes of parameters, -1 where the file does not tell. It returns false if the image is no such file. */
bool read_elf(const void *image, int *sm, std::map<std::string, long> *entries);

} // namespace igc
