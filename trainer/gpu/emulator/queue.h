/* Work that the device has been given and has not done yet. driver.cpp says which work waits for which. */
#pragma once
#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <memory>
#include <vector>

struct Node; /* a kernel, a copy or a fill: driver.cpp */

namespace igc {

struct Work;
using Task = std::shared_ptr<Work>;

struct Work {
	CUcontext context;
	std::shared_ptr<const Node> node; /* null: nothing is done here, but others wait for it */
	std::vector<Task> after;          /* what runs first */
	bool done;
	double time;   /* when it was done, in ms */
	bool hashed;   /* whether it copies from memory that the host must not change before */
	uint64_t hash; /* of that memory when the copy was asked for */

	/* What run_needed knows of it. */
	unsigned long visit;
	unsigned missing;
	std::vector<Work *> next;
};

/* submit adds work to what the device has to do. With IGC_EMULATED_STREAMS=early it runs at once. */
void submit(const Task &t);

/* wait runs a task and what it waits for, and nothing else; with IGC_EMULATED_STREAMS=random perhaps more. Of all work
 * that could run next, a random one does. */
void wait(const Task &t);

/* wait_all does that for all work of a context. */
void wait_all(CUcontext context);

/* any reports whether f is true of work that was not done yet. */
bool any(const std::function<bool(const Work &)> &f);

/* perform does the work, or nothing if the context has failed. It is part of driver.cpp. */
void perform(Work &w);

} // namespace igc
