//go:build ignore

#include "faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

namespace igc {

static std::mutex lock;

static std::string variable(const char *name) {
	const char *value = getenv(name);
	return value ? value : "";
}

/* A misspelt value must not pass for one that asks for nothing. */
static void misspelt(const char *name, const std::string &value) {
	fprintf(stderr, "emulated GPU: cannot read %s=%s\n", name, value.c_str());
	abort();
}

static CUresult error_of(const std::string &name) {
#define NAME(x) if (name == &#x[strlen("CUDA_ERROR_")]) return x;
#include "errors.h"
#undef NAME
	return CUDA_SUCCESS;
}

CUresult kernel_fault(int device) {
	static const char *const name = "IGC_EMULATED_FAULT";
	static std::string seen;
	static std::map<int, long> executed; /* by device */
	std::lock_guard<std::mutex> hold(lock);
	std::string value = variable(name);
	if (value != seen) {
		seen = value;
		executed.clear();
	}
	const long kernel = ++executed[device];
	value = value.substr(0, value.find('#'));
	for (size_t at = 0; at < value.size();) {
		const size_t end = std::min(value.find(' ', at), value.size());
		const std::string one = value.substr(at, end - at);
		at = end + 1;
		int which, length = 0;
		long from;
		if (sscanf(one.c_str(), "%d:%ld%n", &which, &from, &length) != 2) misspelt(name, value);
		const bool on = one[length] == '+';
		length += on;
		CUresult error = CUDA_ERROR_ILLEGAL_ADDRESS;
		if (one[length] == ':') error = error_of(one.substr(length + 1));
		else if (one[length]) error = CUDA_SUCCESS;
		if (error == CUDA_SUCCESS) misspelt(name, value);
		if (device == which && (kernel == from || (on && kernel > from))) return error;
	}
	return CUDA_SUCCESS;
}

CUresult memory_fault() {
	static const char *const name = "IGC_EMULATED_NO_MEMORY";
	static std::string seen;
	static long calls;
	std::lock_guard<std::mutex> hold(lock);
	std::string value = variable(name);
	if (value != seen) {
		seen = value;
		calls = 0;
	}
	calls++;
	value = value.substr(0, value.find('#'));
	if (value.empty()) return CUDA_SUCCESS;
	char *end;
	const long from = strtol(value.c_str(), &end, 10);
	const bool on = *end == '+';
	if (end == value.c_str() || end[on]) misspelt(name, value);
	return calls == from || (on && calls > from) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

int driver_version() {
	static const char *const name = "IGC_EMULATED_DRIVER";
	const std::string value = variable(name);
	if (value.empty()) return CUDA_VERSION;
	int major, minor, length = 0;
	if (sscanf(value.c_str(), "%d.%d%n", &major, &minor, &length) != 2 || value[length]) misspelt(name, value);
	return 1000 * major + 10 * minor;
}

} // namespace igc
