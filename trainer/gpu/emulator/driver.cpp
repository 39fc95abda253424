//go:build ignore

/* A CUDA driver without a GPU: the part of the driver's interface that cu and the executor call, over the memory of the
 * process, with the kernels of ../kernels compiled in. It is slow and strict: it is there so that tests can run all of the
 * GPU's code, and it refuses what hardware refuses or lets pass with wrong results.
 *
 *   IGC_EMULATED_DEVICES      how many devices there are; 1
 *   IGC_EMULATED_CAPABILITY   compute capability of each; 7.0
 *   IGC_EMULATED_MEMORY       bytes of each; 4 GiB
 *   IGC_EMULATED_ORDER        reverse or random: the order of a launch's blocks, warps and lanes
 *   IGC_EMULATED_STREAMS      when work runs: late, the default; random; early, as soon as it is asked for
 *   IGC_EMULATED_SEED         a number that chooses between work that may run in any order
 *
 * Launches, copies, fills, events and graphs enter the queue of their stream (queue.cpp). They run when a call waits for
 * them: a synchronisation of their stream, event or context, a copy to the host, cuMemFree. No more runs than that call
 * needs, so what the program does not wait for, or does not order by events, is missing or has been overwritten. A query
 * that answers "not ready" lets the work run afterwards, so that a loop of queries ends.
 *
 * Host memory that an asynchronous copy reads is read when the copy runs, be it pinned or not, as the driver's
 * documentation allows ("handled asynchronously with a worker thread"); that the host changed or freed it before is an
 * error. Pinned memory that an asynchronous copy writes is full of NaN (0xFF) until then. An asynchronous copy to memory
 * that is not pinned waits, as do all copies without a stream but those from the device to itself and from memory that is
 * not pinned, which is read at once. New pinned memory is full of NaN too, for kernels may write to it.
 *
 * faults.h has the variables that inject faults: a kernel that fails, memory that ends, an old driver.
 *
 * What goes wrong in a kernel gets a line on stderr and an error that sticks to the context, as on hardware: the call that
 * waits for the kernel returns it, and all later ones. New memory is full of NaN and has NaN around it; whether that was
 * written to is seen when a context or stream is waited for and when the memory is freed. One lock covers everything,
 * kernels included. Functions that are missing here are missing in the library, which the program takes as it takes an old
 * driver. */
#include "code.h"
#include "faults.h"
#include "queue.h"
#include "threads.h"

#include <cuda.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

enum {
	PROCESSORS = 4,
	STAGED_MOST = 64 << 20, /* bytes */
};

using Guard = std::lock_guard<std::recursive_mutex>;

struct CUctx_st {
	int device;
	unsigned flags;
	CUresult error; /* sticks until the context is gone */
	igc::Task legacy; /* the last work of the default stream */
};

struct CUfunc_st {
	const igc::Kernel *kernel;
	int dynamic; /* bytes of shared memory a launch may ask for */
};

struct CUmod_st {
	CUcontext context;
	std::map<std::string, long> entries; /* name to bytes of parameters, -1: not told */
	std::map<std::string, std::unique_ptr<CUfunc_st>> functions;
};

struct Node {
	enum { KERNEL_NODE, COPY, FILL } kind;
	/* KERNEL_NODE */
	const igc::Kernel *kernel;
	dim3 grid, block;
	unsigned shared;
	std::vector<unsigned char> args;
	/* COPY, FILL */
	char *to;
	const char *from;
	bool to_device, from_device;
	size_t bytes;
	unsigned value, width; /* of an element in bytes */
	std::shared_ptr<char> staged; /* what a copy reads instead of the host's memory; from points to it */

	std::vector<size_t> after; /* in a graph: the nodes that run first */
};
using Nodes = std::vector<Node>;

struct CUgraph_st { std::shared_ptr<Nodes> nodes = std::make_shared<Nodes>(); };
struct CUgraphExec_st {
	CUcontext context;
	std::shared_ptr<const Nodes> nodes; /* shared, for it may be destroyed while it waits in a queue */
	igc::Task last;                     /* the end of its last launch: a graph never runs beside itself */
};

struct Capture {
	CUstream origin;
	CUstreamCaptureMode mode;
	const void *thread;
	CUgraph graph;
	bool invalid;
};

struct CUstream_st {
	CUcontext context;
	unsigned flags;
	int priority;
	Capture *capture;
	long recorded, joined; /* nodes in this capture; how many of them its origin has waited for */
	std::vector<size_t> ends; /* nodes in this capture that the next one comes after */
	igc::Task last;           /* the last work in its queue */
};

struct CUevent_st {
	CUcontext context;
	unsigned flags;
	bool recorded;
	igc::Task task;   /* null: not recorded, or while capturing */
	Capture *capture; /* recorded while capturing: not an event in time */
	CUstream stream;
	long position;
	std::vector<size_t> ends; /* nodes in the capture that it comes after */
};

struct Memory { size_t bytes; CUcontext context; int device; };
struct Pinned {
	size_t bytes;
	bool allocated; /* or registered */
	bool mapped;    /* kernels may use it */
	CUcontext context;
};

struct Primary { CUcontext context; int users; unsigned flags; };

struct Gpu {
	std::recursive_mutex lock;
	int devices; /* 0 until cuInit */
	std::map<char *, Memory> memory;
	std::map<int, size_t> used; /* bytes, by device */
	std::set<CUcontext> contexts;
	std::set<CUmodule> modules;
	std::set<CUstream> streams;
	std::set<CUevent> events;
	std::set<CUgraph> graphs;
	std::set<CUgraphExec> executables;
	std::set<Capture *> captures;
	std::map<char *, Pinned> host;
	std::map<int, Primary> primary;
};

static Gpu &gpu = *new Gpu{}; /* never destroyed: threads may still call while the process ends */
static thread_local std::vector<CUcontext> current;
static thread_local CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

#define API extern "C" __attribute__((visibility("default"))) CUresult
#define TRY(call) do { if (CUresult r_ = (call)) return r_; } while (0)
#define NEED(condition, error) do { if (!(condition)) return CUDA_ERROR_##error; } while (0)
#define ENTER Guard hold(gpu.lock); NEED(gpu.devices, NOT_INITIALIZED)
#define DEVICE(d) ENTER; NEED((d) >= 0 && (d) < gpu.devices, INVALID_DEVICE)
#define CONTEXT ENTER; CUcontext ctx = nullptr; TRY(find_context(&ctx))

static CUresult find_context(CUcontext *ctx) {
	NEED(!current.empty() && current.back(), INVALID_CONTEXT);
	NEED(gpu.contexts.count(current.back()), CONTEXT_IS_DESTROYED);
	*ctx = current.back();
	return (*ctx)->error;
}

static size_t memory_limit() {
	const char *text = getenv("IGC_EMULATED_MEMORY");
	return text && *text ? strtoull(text, nullptr, 10) : size_t(4) << 30;
}

/* 90 for 9.0. */
static int capability() {
	const char *text = getenv("IGC_EMULATED_CAPABILITY");
	int major = 7, minor = 0;
	if (text && *text && sscanf(text, "%d.%d", &major, &minor) != 2) {
		fprintf(stderr, "emulated GPU: cannot read IGC_EMULATED_CAPABILITY=%s\n", text);
		abort();
	}
	return 10 * major + minor;
}

static double now() {
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

/* Null for the default streams. */
static CUresult find_stream(CUcontext ctx, CUstream *s) {
	if ((uintptr_t)*s <= 2) *s = nullptr;
	NEED(!*s || gpu.streams.count(*s), INVALID_HANDLE);
	NEED(!*s || (*s)->context == ctx, INVALID_HANDLE);
	return CUDA_SUCCESS;
}

/* What the default stream does would wait for the blocking streams, which while they record cannot be waited for. */
static CUresult default_stream(CUcontext ctx) {
	CUresult r = CUDA_SUCCESS;
	for (CUstream s : gpu.streams)
		if (s->context == ctx && s->capture && !(s->flags & CU_STREAM_NON_BLOCKING)) {
			s->capture->invalid = true;
			r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
		}
	return r;
}

/* For calls that may wait for the device behind the scenes: what captures in stricter modes than relaxed forbid. */
static CUresult allowed() {
	CUresult r = CUDA_SUCCESS;
	if (capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return r;
	for (Capture *c : gpu.captures) {
		bool mine = c->thread == &capture_mode && c->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
		bool others = c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && capture_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
		if (!mine && !others) continue;
		c->invalid = true;
		r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	}
	return r;
}

static bool inside(const char *p, size_t bytes) {
	auto i = gpu.memory.upper_bound((char *)p);
	if (i == gpu.memory.begin()) return false;
	--i;
	return p - i->first >= 0 && size_t(p - i->first) <= i->second.bytes && bytes <= i->second.bytes - (p - i->first);
}

static CUresult check_memory(char *base, const Memory &m) {
	const unsigned char *before = (unsigned char *)base - GUARD, *behind = (unsigned char *)base + m.bytes;
	const char *where = !igc::guarded(behind, GUARD) ? "behind its end" : !igc::guarded(before, GUARD) ? "before its start" : nullptr;
	if (!where) return CUDA_SUCCESS;
	fprintf(stderr, "emulated GPU: memory of %zu bytes at %p was written to %s\n", m.bytes, (void *)base, where);
	return m.context->error = CUDA_ERROR_ILLEGAL_ADDRESS;
}

static CUresult check_context(CUcontext ctx) {
	CUresult r = CUDA_SUCCESS;
	for (auto &m : gpu.memory)
		if (m.second.context == ctx && check_memory(m.first, m.second)) r = CUDA_ERROR_ILLEGAL_ADDRESS;
	return r;
}

static bool ranges_exist(const Node &n) {
	if (n.kind == Node::KERNEL_NODE) return true;
	if (n.to_device && !inside(n.to, n.bytes)) return false;
	return !n.from_device || inside(n.from, n.bytes);
}

static CUresult execute(CUcontext ctx, const Node &n) {
	if (n.kind == Node::KERNEL_NODE) {
		if ((ctx->error = igc::kernel_fault(ctx->device))) return ctx->error;
		if (!igc::run(n.kernel, n.args.data(), n.grid, n.block, n.shared)) ctx->error = CUDA_ERROR_LAUNCH_FAILED;
	} else if (!ranges_exist(n)) { /* freed since it was recorded */
		fprintf(stderr, "emulated GPU: a graph copies or fills memory that was freed\n");
		ctx->error = CUDA_ERROR_ILLEGAL_ADDRESS;
	} else if (n.kind == Node::COPY) {
		memmove(n.to, n.from, n.bytes);
	} else {
		for (size_t i = 0; i < n.bytes; i += n.width) memcpy(n.to + i, &n.value, n.width);
	}
	return ctx->error;
}

/* The pinned memory that has these bytes, or the end. */
static std::map<char *, Pinned>::iterator find_pinned(const char *p, size_t bytes) {
	auto i = gpu.host.upper_bound((char *)p);
	if (i == gpu.host.begin()) return gpu.host.end();
	--i;
	return size_t(p - i->first) <= i->second.bytes && bytes <= i->second.bytes - (p - i->first) ? i : gpu.host.end();
}
static bool pinned(const char *p, size_t bytes) { return find_pinned(p, bytes) != gpu.host.end(); }

static uint64_t hash(const char *p, size_t bytes) {
	uint64_t h = bytes;
	for (; bytes >= 8; p += 8, bytes -= 8) {
		uint64_t word;
		memcpy(&word, p, 8);
		h = (h ^ word) * 0x9E3779B97F4A7C15u;
		h ^= h >> 29;
	}
	for (; bytes; p++, bytes--) h = (h ^ (unsigned char)*p) * 0x100000001b3u;
	return h;
}

/* Whether work that is not done yet reads or writes this memory of the host: as a copy or, if mapped is set, as a kernel
 * with an address of it among its arguments. */
static bool in_flight(const char *p, size_t bytes, bool reads, bool writes, bool mapped) {
	auto overlaps = [=](const char *q, size_t n) { return q < p + bytes && p < q + n; };
	return igc::any([=](const igc::Work &w) {
		if (!w.node) return false;
		const Node &n = *w.node;
		if (n.kind == Node::COPY)
			return (reads && !n.from_device && overlaps(n.from, n.bytes)) || (writes && !n.to_device && overlaps(n.to, n.bytes));
		if (mapped && n.kind == Node::KERNEL_NODE)
			for (size_t i = 0; i + sizeof p <= n.args.size(); i += sizeof p) {
				const char *q;
				memcpy(&q, n.args.data() + i, sizeof q);
				if (p <= q && q < p + bytes) return true;
			}
		return false;
	});
}

/* For calls after which memory of the host is not the device's any more. */
static CUresult not_in_flight(CUcontext ctx, char *p, size_t bytes) {
	if (!in_flight(p, bytes, true, true, true)) return CUDA_SUCCESS;
	fprintf(stderr, "emulated GPU: pinned memory at %p is freed while a copy or a kernel uses it\n", (void *)p);
	return ctx->error = CUDA_ERROR_ILLEGAL_ADDRESS;
}

/* Adds work that is done later. Of what it does with the host's memory, this is what happens at once. */
static igc::Task later(CUcontext ctx, std::shared_ptr<const Node> node, std::vector<igc::Task> after) {
	auto t = std::make_shared<igc::Work>();
	t->context = ctx;
	t->node = std::move(node);
	t->after = std::move(after);
	const Node *n = t->node.get();
	bool wait = false;
	if (n && n->kind == Node::COPY && !(n->from_device && n->to_device)) {
		if (!n->from_device && !n->staged && !in_flight(n->from, n->bytes, false, true, false)) {
			t->hashed = true;
			t->hash = hash(n->from, n->bytes);
		}
		wait = !n->to_device && !pinned(n->to, n->bytes);
		if (!n->to_device && !wait && !in_flight(n->to, n->bytes, true, true, false)) memset(n->to, 0xFF, n->bytes);
	}
	igc::submit(t);
	if (wait) igc::wait(t);
	return t;
}

void igc::perform(igc::Work &w) {
	const Node *n = w.node.get();
	if (n && !w.context->error) {
		if (w.hashed && hash(n->from, n->bytes) != w.hash) {
			fprintf(stderr, "emulated GPU: the host changed memory at %p before a copy of its %zu bytes was waited for\n",
				(void *)n->from, n->bytes);
			w.context->error = CUDA_ERROR_ILLEGAL_ADDRESS;
		} else
			execute(w.context, *n);
	}
	w.time = now();
}

/* What new work of a stream comes after. The default stream, which is null, and those that are blocking wait for one
 * another. */
static std::vector<igc::Task> queued(CUcontext ctx, CUstream s) {
	if (s && s->flags & CU_STREAM_NON_BLOCKING) return {s->last};
	if (s) return {s->last, ctx->legacy};
	std::vector<igc::Task> list{ctx->legacy};
	for (CUstream t : gpu.streams)
		if (t->context == ctx && !(t->flags & CU_STREAM_NON_BLOCKING)) list.push_back(t->last);
	return list;
}

/* Puts work at the end of a stream's queue; null is a place in it, for others to wait for. */
static igc::Task enqueue(CUcontext ctx, CUstream s, std::shared_ptr<const Node> node, std::vector<igc::Task> after = {}) {
	for (igc::Task &t : queued(ctx, s)) after.push_back(std::move(t));
	return (s ? s->last : ctx->legacy) = later(ctx, std::move(node), std::move(after));
}

static CUresult wait_for(CUcontext ctx, const igc::Task &t) {
	igc::wait(t);
	return ctx->error;
}

static size_t record(CUstream s, Node n) {
	Nodes &nodes = *s->capture->graph->nodes;
	nodes.push_back(std::move(n));
	s->recorded++;
	return nodes.size() - 1;
}

static CUresult submit(CUcontext ctx, CUstream s, Node n, bool wait = false) {
	TRY(find_stream(ctx, &s));
	NEED(ranges_exist(n), INVALID_VALUE);
	if (!s) TRY(default_stream(ctx));
	if (!s || !s->capture) {
		igc::Task t = enqueue(ctx, s, std::make_shared<Node>(std::move(n)));
		return wait ? wait_for(ctx, t) : CUDA_SUCCESS;
	}
	NEED(!s->capture->invalid, STREAM_CAPTURE_INVALIDATED);
	n.after = s->ends;
	s->ends = {record(s, std::move(n))};
	return CUDA_SUCCESS;
}

static Node copy_node(void *to, bool to_device, const void *from, bool from_device, size_t bytes) {
	Node n{};
	n.kind = Node::COPY;
	n.to = (char *)to;
	n.from = (const char *)from;
	n.to_device = to_device;
	n.from_device = from_device;
	n.bytes = bytes;
	return n;
}

static Node fill_node(CUdeviceptr to, unsigned value, unsigned width, size_t count) {
	Node n{};
	n.kind = Node::FILL;
	n.to = (char *)to;
	n.to_device = true;
	n.bytes = count * width;
	n.value = value;
	n.width = width;
	return n;
}

/* Has a copy read the host's memory now, if there is room. */
static void stage(Node &n) {
	static size_t staged; /* bytes that wait */
	if (staged + n.bytes > STAGED_MOST) return;
	staged += n.bytes;
	size_t bytes = n.bytes;
	n.staged.reset((char *)malloc(bytes + 1), [bytes](char *p) { free(p); staged -= bytes; });
	memcpy(n.staged.get(), n.from, bytes);
	n.from = n.staged.get();
}

/* The calls without a stream are in the default one. */
static CUresult at_once(CUcontext ctx, Node n) {
	TRY(allowed());
	if (n.kind == Node::FILL || (n.to_device && n.from_device)) return submit(ctx, nullptr, std::move(n));
	bool wait = !n.to_device || pinned(n.from, n.bytes);
	if (!wait && ranges_exist(n)) stage(n);
	return submit(ctx, nullptr, std::move(n), wait || !n.staged);
}

static void free_memory(std::map<char *, Memory>::iterator i) {
	gpu.used[i->second.device] -= i->second.bytes;
	free(i->first - GUARD);
	gpu.memory.erase(i);
}

static void end_capture(Capture *c) {
	for (CUstream s : gpu.streams)
		if (s->capture == c) s->capture = nullptr;
	for (CUevent e : gpu.events)
		if (e->capture == c) {
			e->capture = nullptr;
			e->recorded = false;
		}
	gpu.captures.erase(c);
	delete c;
}

template <class T> static void destroy_of(CUcontext ctx, std::set<T> &all) {
	for (auto i = all.begin(); i != all.end();)
		if ((*i)->context == ctx) {
			delete *i;
			i = all.erase(i);
		} else
			++i;
}

static CUresult destroy_context(CUcontext ctx) {
	igc::wait_all(ctx);
	CUresult r = CUDA_SUCCESS;
	for (CUstream s : gpu.streams)
		if (s->context == ctx && s->capture) {
			delete s->capture->graph;
			end_capture(s->capture);
		}
	for (auto i = gpu.memory.begin(); i != gpu.memory.end();) {
		auto m = i++;
		if (m->second.context != ctx) continue;
		if (check_memory(m->first, m->second)) r = CUDA_ERROR_ILLEGAL_ADDRESS;
		free_memory(m);
	}
	for (auto i = gpu.host.begin(); i != gpu.host.end();) {
		auto h = i++;
		if (h->second.context != ctx) continue;
		if (h->second.allocated) free(h->first);
		gpu.host.erase(h);
	}
	destroy_of(ctx, gpu.streams);
	destroy_of(ctx, gpu.events);
	destroy_of(ctx, gpu.modules);
	destroy_of(ctx, gpu.executables);
	gpu.contexts.erase(ctx);
	delete ctx;
	return r;
}

/* -- The library and devices -- */

static const char *error_name(CUresult r) {
	switch (r) {
#define NAME(x) case x: return #x;
#include "errors.h"
	}
	return nullptr;
}

API cuGetErrorName(CUresult r, const char **text) {
	*text = error_name(r);
	return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
API cuGetErrorString(CUresult r, const char **text) { return cuGetErrorName(r, text); }

API cuInit(unsigned flags) {
	Guard hold(gpu.lock);
	NEED(!flags, INVALID_VALUE);
	const char *text = getenv("IGC_EMULATED_DEVICES");
	gpu.devices = text && *text ? atoi(text) : 1;
	NEED(gpu.devices > 0, NO_DEVICE);
	return CUDA_SUCCESS;
}
API cuDriverGetVersion(int *v) { *v = igc::driver_version(); return CUDA_SUCCESS; }
API cuDeviceGetCount(int *n) { ENTER; *n = gpu.devices; return CUDA_SUCCESS; }
API cuDeviceGet(CUdevice *d, int i) { DEVICE(i); *d = i; return CUDA_SUCCESS; }
API cuDeviceGetName(char *name, int n, CUdevice d) { DEVICE(d); snprintf(name, n, "Emulated GPU"); return CUDA_SUCCESS; }
API cuDeviceTotalMem(size_t *n, CUdevice d) { DEVICE(d); *n = memory_limit(); return CUDA_SUCCESS; }
API cuDeviceGetPCIBusId(char *id, int n, CUdevice d) {
	DEVICE(d);
	snprintf(id, n, "0000:%02x:00.0", d + 1);
	return CUDA_SUCCESS;
}
API cuDeviceGetUuid(CUuuid *id, CUdevice d) {
	DEVICE(d);
	memcpy(id->bytes, "IGC emulated GPU", 16);
	id->bytes[15] = char(d);
	return CUDA_SUCCESS;
}
API cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice d) {
	DEVICE(d);
	switch (a) {
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *v = capability() / 10; break;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *v = capability() % 10; break;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *v = PROCESSORS; break;
	case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *v = WARP; break;
	case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
	case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
	case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *v = MAX_THREADS; break;
	case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *v = 64; break;
	case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *v = 0x7fffffff; break;
	case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
	case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *v = 65535; break;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *v = SHARED_DEFAULT; break;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *v = SHARED_MAX; break;
	case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
	case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *v = 65536; break;
	case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *v = 2048; break;
	case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: *v = 32; break;
	case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
	case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *v = 1000000; break;
	case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *v = 64; break;
	case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *v = 4 << 20; break;
	case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: *v = 65536; break;
	case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
	case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
	case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
	case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: *v = 1; break;
	case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: *v = d + 1; break;
	default: *v = 0;
	}
	return CUDA_SUCCESS;
}

/* -- Contexts -- */

static CUcontext make_context(CUdevice d, unsigned flags) {
	CUcontext ctx = new CUctx_st{d, flags, CUDA_SUCCESS};
	gpu.contexts.insert(ctx);
	return ctx;
}

API cuCtxCreate(CUcontext *ctx, unsigned flags, CUdevice d) {
	DEVICE(d);
	TRY(igc::memory_fault());
	current.push_back(*ctx = make_context(d, flags));
	return CUDA_SUCCESS;
}
API cuCtxDestroy(CUcontext ctx) {
	ENTER;
	NEED(gpu.contexts.count(ctx), INVALID_CONTEXT);
	if (!current.empty() && current.back() == ctx) current.pop_back();
	return destroy_context(ctx);
}
API cuCtxPushCurrent(CUcontext ctx) {
	ENTER;
	NEED(gpu.contexts.count(ctx), INVALID_CONTEXT);
	current.push_back(ctx);
	return CUDA_SUCCESS;
}
API cuCtxPopCurrent(CUcontext *ctx) {
	ENTER;
	NEED(!current.empty(), INVALID_CONTEXT);
	if (ctx) *ctx = current.back();
	current.pop_back();
	return CUDA_SUCCESS;
}
API cuCtxSetCurrent(CUcontext ctx) {
	ENTER;
	NEED(!ctx || gpu.contexts.count(ctx), INVALID_CONTEXT);
	if (!current.empty()) current.pop_back();
	if (ctx) current.push_back(ctx);
	return CUDA_SUCCESS;
}
API cuCtxGetCurrent(CUcontext *ctx) { ENTER; *ctx = current.empty() ? nullptr : current.back(); return CUDA_SUCCESS; }
API cuCtxGetDevice(CUdevice *d) { CONTEXT; *d = ctx->device; return CUDA_SUCCESS; }
API cuCtxGetFlags(unsigned *flags) { CONTEXT; *flags = ctx->flags; return CUDA_SUCCESS; }
API cuCtxSynchronize(void) {
	CONTEXT;
	for (CUstream s : gpu.streams)
		if (s->context == ctx && s->capture) {
			s->capture->invalid = true;
			return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
		}
	igc::wait_all(ctx);
	TRY(ctx->error);
	return check_context(ctx);
}
API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
	CONTEXT;
	if (least) *least = 0;
	if (greatest) *greatest = 0;
	return CUDA_SUCCESS;
}

static CUresult destroy_primary(Primary &p) {
	CUcontext ctx = p.context;
	p.context = nullptr;
	return ctx ? destroy_context(ctx) : CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice d) {
	DEVICE(d);
	Primary &p = gpu.primary[d];
	if (!p.context) {
		TRY(igc::memory_fault());
		p.context = make_context(d, p.flags);
	}
	p.users++;
	*ctx = p.context;
	return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRelease(CUdevice d) {
	DEVICE(d);
	Primary &p = gpu.primary[d];
	NEED(p.users, INVALID_CONTEXT);
	return --p.users ? CUDA_SUCCESS : destroy_primary(p);
}
/* Its users stay, and have to release it. */
API cuDevicePrimaryCtxReset(CUdevice d) { DEVICE(d); return destroy_primary(gpu.primary[d]); }
API cuDevicePrimaryCtxSetFlags(CUdevice d, unsigned flags) { DEVICE(d); gpu.primary[d].flags = flags; return CUDA_SUCCESS; }
API cuDevicePrimaryCtxGetState(CUdevice d, unsigned *flags, int *active) {
	DEVICE(d);
	*flags = gpu.primary[d].flags;
	*active = gpu.primary[d].context != nullptr;
	return CUDA_SUCCESS;
}

/* -- Modules and functions -- */

/* Which kernels a PTX text has, and how many bytes of parameters where it is one structure. */
static std::map<std::string, long> parse(const std::string &ptx) {
	std::map<std::string, long> entries;
	const std::string keyword = ".entry";
	for (size_t i = ptx.find(keyword); i != std::string::npos; i = ptx.find(keyword, i)) {
		i = ptx.find_first_not_of(" \t\r\n", i + keyword.size());
		if (i == std::string::npos) break;
		size_t end = std::min(ptx.find_first_of(" \t\r\n({", i), ptx.size());
		std::string name = ptx.substr(i, end - i);
		size_t open = ptx.find_first_of("({", end), close = ptx.find(')', end);
		long bytes = -1;
		if (open != std::string::npos && ptx[open] == '(' && close != std::string::npos) {
			size_t bracket = ptx.find('[', open);
			if (bracket < close && ptx.find(".param", ptx.find(".param", open) + 1) > close)
				bytes = strtol(ptx.c_str() + bracket + 1, nullptr, 10);
		}
		entries[name] = bytes;
		i = end;
	}
	return entries;
}

API cuModuleLoadData(CUmodule *m, const void *image) {
	CONTEXT;
	TRY(allowed());
	TRY(igc::memory_fault());
	std::map<std::string, long> entries;
	if (igc::is_elf(image)) {
		int sm;
		NEED(igc::read_elf(image, &sm, &entries), INVALID_IMAGE);
		/* Machine code runs on devices of the same major number and the same or a larger minor one. */
		NEED(sm / 10 == capability() / 10 && sm % 10 <= capability() % 10, NO_BINARY_FOR_GPU);
	} else {
		std::string ptx = (const char *)image;
		NEED(ptx.find(".version") != std::string::npos, INVALID_PTX);
		size_t target = ptx.find(".target sm_");
		NEED(target == std::string::npos || atoi(ptx.c_str() + target + 11) <= capability(), NO_BINARY_FOR_GPU);
		entries = parse(ptx);
	}
	*m = new CUmod_st{ctx, std::move(entries), {}};
	gpu.modules.insert(*m);
	return CUDA_SUCCESS;
}
API cuModuleLoadDataEx(CUmodule *m, const void *image, unsigned, CUjit_option *, void **) { return cuModuleLoadData(m, image); }
API cuModuleLoad(CUmodule *m, const char *path) {
	CONTEXT;
	std::string text;
	FILE *f = fopen(path, "rb");
	NEED(f, FILE_NOT_FOUND);
	for (int c; (c = getc(f)) != EOF;) text += char(c);
	fclose(f);
	return cuModuleLoadData(m, text.c_str());
}
API cuModuleUnload(CUmodule m) {
	CONTEXT;
	NEED(gpu.modules.erase(m), INVALID_HANDLE);
	delete m;
	return CUDA_SUCCESS;
}
API cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
	CONTEXT;
	NEED(gpu.modules.count(m), INVALID_HANDLE);
	auto entry = m->entries.find(name);
	NEED(entry != m->entries.end(), NOT_FOUND);
	std::unique_ptr<CUfunc_st> &function = m->functions[name];
	if (!function) {
		const igc::Kernel *k = igc::kernels;
		while (k && strcmp(k->name, name)) k = k->next;
		if (!k) fprintf(stderr, "emulated GPU: the code has a kernel %s, the sources have none\n", name);
		NEED(k, NOT_FOUND);
		if (entry->second >= 0 && size_t(entry->second) != k->bytes) {
			fprintf(stderr, "emulated GPU: kernel %s takes %ld bytes in the code and %zu in the source: old code?\n", name,
				entry->second, k->bytes);
			return CUDA_ERROR_INVALID_IMAGE;
		}
		function.reset(new CUfunc_st{k, SHARED_DEFAULT});
	}
	*f = function.get();
	return CUDA_SUCCESS;
}

/* Looks the handle up without reading it, for its module may be gone. */
static CUresult find_function(CUcontext ctx, CUfunction f) {
	for (CUmodule m : gpu.modules)
		if (m->context == ctx)
			for (auto &x : m->functions)
				if (x.second.get() == f && f) return CUDA_SUCCESS;
	return CUDA_ERROR_INVALID_HANDLE;
}

API cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) {
	CONTEXT;
	TRY(find_function(ctx, f));
	if (a == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return CUDA_SUCCESS;
	NEED(a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES && v >= 0 && v <= SHARED_MAX, INVALID_VALUE);
	f->dynamic = v;
	return CUDA_SUCCESS;
}
API cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction f) {
	CONTEXT;
	TRY(find_function(ctx, f));
	switch (a) {
	case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *v = f->kernel->threads; break;
	case CU_FUNC_ATTRIBUTE_NUM_REGS: *v = 32; break;
	case CU_FUNC_ATTRIBUTE_PTX_VERSION: *v = 70; break;
	case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *v = capability(); break;
	case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *v = f->dynamic; break;
	default: *v = 0;
	}
	return CUDA_SUCCESS;
}
API cuFuncSetCacheConfig(CUfunction f, CUfunc_cache) { CONTEXT; return find_function(ctx, f); }
API cuFuncSetSharedMemConfig(CUfunction f, CUsharedconfig) { CONTEXT; return find_function(ctx, f); }
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction f, int block, size_t shared) {
	CONTEXT;
	TRY(find_function(ctx, f));
	NEED(block > 0, INVALID_VALUE);
	*n = unsigned(block) > f->kernel->threads || shared > size_t(f->dynamic) ? 0 : std::min(32, 2048 / block);
	if (shared) *n = std::min(*n, int(SHARED_MAX / shared));
	return CUDA_SUCCESS;
}

API cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
		unsigned shared, CUstream s, void **params, void **extra) {
	CONTEXT;
	TRY(find_function(ctx, f));
	NEED(!extra && (params || !f->kernel->bytes), INVALID_VALUE);
	NEED(gx && gy && gz && bx && by && bz, INVALID_VALUE);
	NEED(gx <= 0x7fffffff && gy <= 65535 && gz <= 65535, INVALID_VALUE);
	NEED(bx <= MAX_THREADS && by <= MAX_THREADS && bz <= 64, INVALID_VALUE);
	NEED(size_t(bx) * by * bz <= f->kernel->threads, INVALID_VALUE);
	NEED(shared <= unsigned(f->dynamic), INVALID_VALUE);
	Node n{};
	n.kind = Node::KERNEL_NODE;
	n.kernel = f->kernel;
	n.grid = {gx, gy, gz};
	n.block = {bx, by, bz};
	n.shared = shared;
	if (params) n.args.assign((unsigned char *)params[0], (unsigned char *)params[0] + f->kernel->bytes);
	return submit(ctx, s, std::move(n));
}

/* -- Memory -- */

API cuMemGetInfo(size_t *left, size_t *total) {
	CONTEXT;
	*total = memory_limit();
	*left = *total - std::min(*total, gpu.used[ctx->device]);
	return CUDA_SUCCESS;
}
API cuMemAlloc(CUdeviceptr *p, size_t bytes) {
	CONTEXT;
	TRY(allowed());
	NEED(bytes, INVALID_VALUE);
	TRY(igc::memory_fault());
	size_t limit = memory_limit(), used = gpu.used[ctx->device];
	NEED(used <= limit && bytes <= limit - used, OUT_OF_MEMORY);
	void *memory;
	static_assert(GUARD % 256 == 0, "memory is aligned as on hardware");
	NEED(!posix_memalign(&memory, 256, bytes + 2 * GUARD), OUT_OF_MEMORY);
	memset(memory, 0xFF, bytes + 2 * GUARD);
	char *base = (char *)memory + GUARD;
	gpu.memory[base] = {bytes, ctx, ctx->device};
	gpu.used[ctx->device] += bytes;
	*p = (CUdeviceptr)base;
	return CUDA_SUCCESS;
}
API cuMemAllocManaged(CUdeviceptr *p, size_t bytes, unsigned) { return cuMemAlloc(p, bytes); }
API cuMemFree(CUdeviceptr p) {
	CONTEXT;
	TRY(allowed());
	if (!p) return CUDA_SUCCESS;
	auto i = gpu.memory.find((char *)p);
	NEED(i != gpu.memory.end(), INVALID_VALUE);
	igc::wait_all(ctx);
	TRY(ctx->error);
	CUresult r = check_memory(i->first, i->second);
	free_memory(i);
	return r;
}
API cuMemGetAddressRange(CUdeviceptr *base, size_t *bytes, CUdeviceptr p) {
	CONTEXT;
	NEED(inside((char *)p, 1), NOT_FOUND);
	auto i = --gpu.memory.upper_bound((char *)p);
	if (base) *base = (CUdeviceptr)i->first;
	if (bytes) *bytes = i->second.bytes;
	return CUDA_SUCCESS;
}
API cuMemHostAlloc(void **p, size_t bytes, unsigned flags) {
	CONTEXT;
	TRY(allowed());
	NEED(bytes, INVALID_VALUE);
	TRY(igc::memory_fault());
	NEED(!posix_memalign(p, 4096, bytes), OUT_OF_MEMORY);
	memset(*p, 0xFF, bytes);
	gpu.host[(char *)*p] = {bytes, true, (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0, ctx};
	return CUDA_SUCCESS;
}
API cuMemAllocHost(void **p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }
API cuMemFreeHost(void *p) {
	CONTEXT;
	TRY(allowed());
	auto i = gpu.host.find((char *)p);
	NEED(i != gpu.host.end() && i->second.allocated, INVALID_VALUE);
	TRY(not_in_flight(ctx, i->first, i->second.bytes));
	gpu.host.erase(i);
	free(p);
	return CUDA_SUCCESS;
}
API cuMemHostRegister(void *p, size_t bytes, unsigned) {
	CONTEXT;
	NEED(!pinned((char *)p, 0), HOST_MEMORY_ALREADY_REGISTERED);
	gpu.host[(char *)p] = {bytes, false, false, ctx};
	return CUDA_SUCCESS;
}
API cuMemHostUnregister(void *p) {
	CONTEXT;
	auto i = gpu.host.find((char *)p);
	NEED(i != gpu.host.end() && !i->second.allocated, HOST_MEMORY_NOT_REGISTERED);
	TRY(not_in_flight(ctx, i->first, i->second.bytes));
	gpu.host.erase(i);
	return CUDA_SUCCESS;
}
API cuMemHostGetDevicePointer(CUdeviceptr *d, void *p, unsigned) {
	CONTEXT;
	auto i = find_pinned((char *)p, 1);
	NEED(i != gpu.host.end() && i->second.mapped, INVALID_VALUE);
	*d = (CUdeviceptr)p;
	return CUDA_SUCCESS;
}

API cuMemcpyHtoD(CUdeviceptr d, const void *h, size_t n) { CONTEXT; return at_once(ctx, copy_node((void *)d, true, h, false, n)); }
API cuMemcpyDtoH(void *h, CUdeviceptr d, size_t n) { CONTEXT; return at_once(ctx, copy_node(h, false, (void *)d, true, n)); }
API cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t n) {
	CONTEXT;
	return at_once(ctx, copy_node((void *)to, true, (void *)from, true, n));
}
API cuMemcpyHtoDAsync(CUdeviceptr d, const void *h, size_t n, CUstream s) {
	CONTEXT;
	return submit(ctx, s, copy_node((void *)d, true, h, false, n));
}
API cuMemcpyDtoHAsync(void *h, CUdeviceptr d, size_t n, CUstream s) {
	CONTEXT;
	return submit(ctx, s, copy_node(h, false, (void *)d, true, n));
}
API cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s) {
	CONTEXT;
	return submit(ctx, s, copy_node((void *)to, true, (void *)from, true, n));
}
/* Of any two addresses: which are the device's is known here. */
API cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t n) {
	CONTEXT;
	return at_once(ctx, copy_node((void *)to, inside((char *)to, 0), (void *)from, inside((char *)from, 0), n));
}
API cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s) {
	CONTEXT;
	return submit(ctx, s, copy_node((void *)to, inside((char *)to, 0), (void *)from, inside((char *)from, 0), n));
}
API cuMemcpyPeer(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t n) { return cuMemcpyDtoD(to, from, n); }
API cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t n, CUstream s) {
	return cuMemcpyDtoDAsync(to, from, n, s);
}

#define MEMSET(NOW, LATER, TYPE) \
	API NOW(CUdeviceptr p, TYPE v, size_t n) { CONTEXT; return at_once(ctx, fill_node(p, v, sizeof v, n)); } \
	API LATER(CUdeviceptr p, TYPE v, size_t n, CUstream s) { CONTEXT; return submit(ctx, s, fill_node(p, v, sizeof v, n)); }
MEMSET(cuMemsetD8, cuMemsetD8Async, unsigned char)
MEMSET(cuMemsetD16, cuMemsetD16Async, unsigned short)
MEMSET(cuMemsetD32, cuMemsetD32Async, unsigned)

/* -- Streams -- */

API cuStreamCreateWithPriority(CUstream *s, unsigned flags, int priority) {
	CONTEXT;
	NEED(flags <= CU_STREAM_NON_BLOCKING, INVALID_VALUE);
	TRY(igc::memory_fault());
	*s = new CUstream_st{ctx, flags, priority, nullptr, 0, 0};
	gpu.streams.insert(*s);
	return CUDA_SUCCESS;
}
API cuStreamCreate(CUstream *s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }
API cuStreamDestroy(CUstream s) {
	CONTEXT;
	NEED(gpu.streams.count(s), INVALID_HANDLE);
	NEED(!s->capture, STREAM_CAPTURE_UNSUPPORTED);
	/* Its work goes on. A blocking stream's may now wait for more than it must, but others still wait for it. */
	if (s->last && !(s->flags & CU_STREAM_NON_BLOCKING)) enqueue(s->context, nullptr, nullptr);
	gpu.streams.erase(s);
	for (CUevent e : gpu.events)
		if (e->stream == s) e->stream = nullptr;
	delete s;
	return CUDA_SUCCESS;
}
API cuStreamGetFlags(CUstream s, unsigned *flags) {
	CONTEXT;
	TRY(find_stream(ctx, &s));
	*flags = s ? s->flags : 0;
	return CUDA_SUCCESS;
}
API cuStreamGetPriority(CUstream s, int *priority) {
	CONTEXT;
	TRY(find_stream(ctx, &s));
	*priority = s ? s->priority : 0;
	return CUDA_SUCCESS;
}
/* The last work in a stream's queue. */
static CUresult find_last(CUcontext ctx, CUstream s, igc::Task *last) {
	TRY(find_stream(ctx, &s));
	if (!s) TRY(default_stream(ctx));
	if (s && s->capture) {
		s->capture->invalid = true;
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	}
	*last = s ? s->last : enqueue(ctx, nullptr, nullptr);
	return CUDA_SUCCESS;
}
API cuStreamSynchronize(CUstream s) {
	CONTEXT;
	igc::Task last;
	TRY(find_last(ctx, s, &last));
	TRY(wait_for(ctx, last));
	return check_context(ctx);
}
static CUresult query(const igc::Task &t) {
	if (!t || t->done) return CUDA_SUCCESS;
	igc::wait(t); /* so that the next query finds it done */
	return CUDA_ERROR_NOT_READY;
}
API cuStreamQuery(CUstream s) {
	CONTEXT;
	igc::Task last;
	TRY(find_last(ctx, s, &last));
	return query(last);
}

static void join(std::vector<size_t> &ends, const std::vector<size_t> &others) {
	ends.insert(ends.end(), others.begin(), others.end());
	std::sort(ends.begin(), ends.end());
	ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
}

API cuStreamWaitEvent(CUstream s, CUevent e, unsigned) {
	CONTEXT;
	TRY(find_stream(ctx, &s));
	NEED(gpu.events.count(e), INVALID_HANDLE);
	if (!e->capture) {
		NEED(!s || !s->capture || !e->recorded, STREAM_CAPTURE_ISOLATION);
		if (!s) TRY(default_stream(ctx));
		if (e->task && !e->task->done) enqueue(ctx, s, nullptr, {e->task});
		return CUDA_SUCCESS;
	}
	NEED(s, STREAM_CAPTURE_IMPLICIT);
	if (!s->capture) { /* the capture goes on in this stream too */
		s->capture = e->capture;
		s->recorded = 1; /* even if nothing follows it has to come back */
		s->joined = 0;
		s->ends = e->ends;
	} else if (s->capture != e->capture) {
		s->capture->invalid = e->capture->invalid = true;
		return CUDA_ERROR_STREAM_CAPTURE_MERGE;
	} else {
		join(s->ends, e->ends);
		if (e->stream && e->stream != s) e->stream->joined = std::max(e->stream->joined, e->position);
	}
	return CUDA_SUCCESS;
}

/* Whether all nodes of a capture come before the last ones of its origin. */
static bool all_joined(const Capture *c) {
	std::vector<bool> before(c->graph->nodes->size());
	for (size_t i : c->origin->ends) before[i] = true;
	for (size_t i = before.size(); i--;) {
		if (!before[i]) return false;
		for (size_t j : (*c->graph->nodes)[i].after) before[j] = true;
	}
	return true;
}

API cuStreamBeginCapture(CUstream s, CUstreamCaptureMode mode) {
	CONTEXT;
	TRY(find_stream(ctx, &s));
	NEED(s, STREAM_CAPTURE_UNSUPPORTED); /* the default stream cannot */
	NEED(!s->capture, ILLEGAL_STATE);
	s->capture = new Capture{s, mode, &capture_mode, new CUgraph_st{}, false};
	s->recorded = s->joined = 0;
	s->ends.clear();
	gpu.captures.insert(s->capture);
	return CUDA_SUCCESS;
}
API cuStreamEndCapture(CUstream s, CUgraph *g) {
	CONTEXT;
	TRY(find_stream(ctx, &s));
	NEED(s && s->capture, ILLEGAL_STATE);
	Capture *c = s->capture;
	NEED(c->origin == s, STREAM_CAPTURE_UNMATCHED);
	NEED(c->mode == CU_STREAM_CAPTURE_MODE_RELAXED || c->thread == &capture_mode, STREAM_CAPTURE_WRONG_THREAD);
	CUresult r = c->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
	for (CUstream t : gpu.streams)
		if (t != s && t->capture == c && t->joined < t->recorded && !r) r = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
	if (!r && !all_joined(c)) r = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
	*g = r ? nullptr : c->graph;
	if (r)
		delete c->graph;
	else
		gpu.graphs.insert(c->graph);
	end_capture(c);
	return r;
}
API cuStreamIsCapturing(CUstream s, CUstreamCaptureStatus *status) {
	CONTEXT;
	TRY(find_stream(ctx, &s));
	*status = !s || !s->capture ? CU_STREAM_CAPTURE_STATUS_NONE
		: s->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
	return CUDA_SUCCESS;
}
API cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) { std::swap(*mode, capture_mode); return CUDA_SUCCESS; }

/* -- Events -- */

API cuEventCreate(CUevent *e, unsigned flags) {
	CONTEXT;
	TRY(igc::memory_fault());
	*e = new CUevent_st{};
	(*e)->context = ctx;
	(*e)->flags = flags;
	gpu.events.insert(*e);
	return CUDA_SUCCESS;
}
API cuEventDestroy(CUevent e) {
	CONTEXT;
	NEED(gpu.events.erase(e), INVALID_HANDLE);
	delete e;
	return CUDA_SUCCESS;
}
API cuEventRecord(CUevent e, CUstream s) {
	CONTEXT;
	TRY(find_stream(ctx, &s));
	NEED(gpu.events.count(e) && e->context == ctx, INVALID_HANDLE);
	if (!s) TRY(default_stream(ctx));
	e->recorded = true;
	e->capture = s ? s->capture : nullptr;
	e->task = e->capture ? nullptr : enqueue(ctx, s, nullptr);
	e->stream = s;
	e->position = s ? s->recorded : 0;
	e->ends = e->capture ? s->ends : std::vector<size_t>();
	return CUDA_SUCCESS;
}
API cuEventSynchronize(CUevent e) {
	CONTEXT;
	NEED(gpu.events.count(e), INVALID_HANDLE);
	NEED(!e->capture, CAPTURED_EVENT);
	return wait_for(e->context, e->task);
}
API cuEventQuery(CUevent e) {
	CONTEXT;
	NEED(gpu.events.count(e), INVALID_HANDLE);
	NEED(!e->capture, CAPTURED_EVENT);
	return query(e->task);
}
API cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
	CONTEXT;
	for (CUevent e : {from, to}) {
		NEED(gpu.events.count(e), INVALID_HANDLE);
		NEED(!e->capture, CAPTURED_EVENT);
		NEED(e->recorded && !(e->flags & CU_EVENT_DISABLE_TIMING), INVALID_HANDLE);
	}
	NEED(from->task->done && to->task->done, NOT_READY);
	*ms = float(to->task->time - from->task->time);
	return CUDA_SUCCESS;
}

/* -- Graphs -- */

API cuGraphInstantiateWithFlags(CUgraphExec *x, CUgraph g, unsigned long long) {
	CONTEXT;
	NEED(gpu.graphs.count(g), INVALID_VALUE);
	TRY(igc::memory_fault());
	*x = new CUgraphExec_st{ctx, g->nodes};
	gpu.executables.insert(*x);
	return CUDA_SUCCESS;
}
API cuGraphUpload(CUgraphExec x, CUstream s) {
	CONTEXT;
	NEED(gpu.executables.count(x), INVALID_VALUE);
	return find_stream(ctx, &s);
}
/* The nodes of a list that none of it comes after. */
static std::vector<size_t> ends_of(const Nodes &nodes) {
	std::vector<bool> followed(nodes.size());
	for (const Node &n : nodes)
		for (size_t i : n.after) followed[i] = true;
	std::vector<size_t> ends;
	for (size_t i = 0; i < nodes.size(); i++)
		if (!followed[i]) ends.push_back(i);
	return ends;
}

/* A graph that is launched into a capture becomes a part of it. */
static CUresult launch_in_capture(CUgraphExec x, CUstream s) {
	NEED(!s->capture->invalid, STREAM_CAPTURE_INVALIDATED);
	size_t first = s->capture->graph->nodes->size();
	for (Node n : *x->nodes) {
		for (size_t &i : n.after) i += first;
		if (n.after.empty()) n.after = s->ends;
		record(s, std::move(n));
	}
	if (x->nodes->empty()) return CUDA_SUCCESS;
	s->ends = ends_of(*x->nodes);
	for (size_t &i : s->ends) i += first;
	return CUDA_SUCCESS;
}

API cuGraphLaunch(CUgraphExec x, CUstream s) {
	CONTEXT;
	NEED(gpu.executables.count(x), INVALID_VALUE);
	NEED(x->context == ctx, INVALID_HANDLE);
	TRY(find_stream(ctx, &s));
	if (s && s->capture) return launch_in_capture(x, s);
	if (!s) TRY(default_stream(ctx));
	std::vector<igc::Task> tasks, start = queued(ctx, s), end;
	start.push_back(x->last);
	for (const Node &n : *x->nodes) {
		std::vector<igc::Task> after;
		for (size_t i : n.after) after.push_back(tasks[i]);
		tasks.push_back(later(ctx, std::shared_ptr<const Node>(x->nodes, &n), n.after.empty() ? start : after));
	}
	for (size_t i : ends_of(*x->nodes)) end.push_back(tasks[i]);
	x->last = enqueue(ctx, s, nullptr, end);
	return CUDA_SUCCESS;
}
API cuGraphExecDestroy(CUgraphExec x) {
	ENTER;
	NEED(gpu.executables.erase(x), INVALID_VALUE);
	delete x;
	return CUDA_SUCCESS;
}
API cuGraphDestroy(CUgraph g) {
	ENTER;
	NEED(gpu.graphs.erase(g), INVALID_VALUE);
	delete g;
	return CUDA_SUCCESS;
}
/* Only how many: the nodes have no handles. */
API cuGraphGetNodes(CUgraph g, CUgraphNode *nodes, size_t *n) {
	ENTER;
	NEED(gpu.graphs.count(g) && !nodes, INVALID_VALUE);
	*n = g->nodes->size();
	return CUDA_SUCCESS;
}
