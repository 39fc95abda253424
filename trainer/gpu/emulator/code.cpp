//go:build ignore

#include "code.h"

#include <elf.h>
#include <string.h>

namespace igc {

enum {
	CUDA_MACHINE = 190, /* EM_CUDA of newer elf.h */
	HALF_VALUE = 3,     /* an attribute whose value is in its head */
	PARAMETER_BYTES = 0x19,
};

bool is_elf(const void *image) { return !memcmp(image, ELFMAG, SELFMAG); }

/* A kernel's attributes: format, attribute, and two bytes that are the value or the length of what follows. */
static long parameter_bytes(const unsigned char *p, size_t n) {
	for (size_t i = 0; i + 4 <= n;) {
		unsigned short value;
		memcpy(&value, p + i + 2, sizeof value);
		if (p[i] == HALF_VALUE && p[i + 1] == PARAMETER_BYTES) return value;
		i += p[i] == 4 ? 4 + value : 4;
	}
	return -1;
}

bool read_elf(const void *image, int *sm, std::map<std::string, long> *entries) {
	const char *base = (const char *)image;
	Elf64_Ehdr head;
	if (!is_elf(image)) return false;
	memcpy(&head, base, sizeof head);
	if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != CUDA_MACHINE || head.e_type != ET_EXEC ||
			head.e_shentsize != sizeof(Elf64_Shdr) || head.e_shstrndx >= head.e_shnum)
		return false;
	*sm = head.e_flags & 0xff;
	auto section = [&](unsigned i) {
		Elf64_Shdr s;
		memcpy(&s, base + head.e_shoff + i * sizeof s, sizeof s);
		return s;
	};
	const char *names = base + section(head.e_shstrndx).sh_offset;
	const std::string code = ".text.", attributes = ".nv.info.";
	for (unsigned i = 0; i < head.e_shnum; i++) {
		const Elf64_Shdr s = section(i);
		const std::string name = names + s.sh_name;
		if (!name.compare(0, code.size(), code) && s.sh_size) entries->emplace(name.substr(code.size()), -1);
		if (!name.compare(0, attributes.size(), attributes))
			(*entries)[name.substr(attributes.size())] = parameter_bytes((const unsigned char *)base + s.sh_offset, s.sh_size);
	}
	return true;
}

} // namespace igc
