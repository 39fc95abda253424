//go:build ignore

/* When the emulated device does its work. Hardware is free to do it at any time between the call that asks for it and the
 * call that waits for it, so code that forgets to wait works most of the time. Here it fails: work runs only when
 * something waits for it, and of streams and branches of graphs that nothing orders, any may be first. */
#include "queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <deque>

namespace igc {

/* As on hardware, whose queues are finite too, the oldest work runs when there is too much of it. */
enum { MOST = 1 << 16 };

static std::deque<Task> &pending = *new std::deque<Task>; /* in the order of the calls, with some that is done */
static size_t undone;
static unsigned long visit;

enum Mode { LATE, RANDOM, EARLY };

static Mode mode() {
	const char *text = getenv("IGC_EMULATED_STREAMS");
	if (!text || !*text || !strcmp(text, "late")) return LATE;
	if (!strcmp(text, "random")) return RANDOM;
	if (!strcmp(text, "early")) return EARLY;
	fprintf(stderr, "emulated GPU: IGC_EMULATED_STREAMS=%s: want late, random or early\n", text);
	abort();
}

static uint64_t random_number() {
	static uint64_t s;
	if (!s) {
		const char *text = getenv("IGC_EMULATED_SEED");
		s = (text ? strtoull(text, nullptr, 10) : 0) * 0x9E3779B97F4A7C15u + 88172645463325252u;
		if (!s) s = 1;
	}
	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s;
}

static void finish(Work &w) {
	perform(w);
	w.done = true;
	w.node.reset();
	w.after.clear();
	undone--;
}

static void clean() {
	while (!pending.empty() && pending.front()->done) pending.pop_front();
	if (pending.size() > 2 * undone + 1024)
		pending.erase(std::remove_if(pending.begin(), pending.end(), [](const Task &t) { return t->done; }), pending.end());
}

/* Runs goal and what it needs, or with all set anything until goal is done. */
static void run_needed(const Task &goal, bool all) {
	std::vector<Task> found; /* also keeps alive what next points to */
	visit++;
	auto find = [&](const Task &t) {
		if (t->done || t->visit == visit) return;
		t->visit = visit;
		t->missing = 0;
		t->next.clear();
		found.push_back(t);
	};
	find(goal);
	if (all)
		for (const Task &t : pending) find(t);
	std::vector<Work *> ready;
	for (size_t i = 0; i < found.size(); i++) {
		Task t = found[i];
		for (const Task &first : t->after) {
			if (first->done) continue;
			find(first);
			first->next.push_back(t.get());
			t->missing++;
		}
		if (!t->missing) ready.push_back(t.get());
	}
	while (!goal->done) {
		std::swap(ready[random_number() % ready.size()], ready.back());
		Work *w = ready.back();
		ready.pop_back();
		finish(*w);
		for (Work *t : w->next)
			if (!--t->missing) ready.push_back(t);
	}
}

void wait(const Task &t) {
	if (t && !t->done) run_needed(t, mode() == RANDOM);
	clean();
}

void wait_all(CUcontext context) {
	auto all = std::make_shared<Work>();
	all->context = context;
	for (const Task &t : pending)
		if (!t->done && t->context == context) all->after.push_back(t);
	if (all->after.empty()) return;
	undone++;
	run_needed(all, false);
	clean();
}

void submit(const Task &t) {
	auto done = [](const Task &first) { return !first || first->done; };
	t->after.erase(std::remove_if(t->after.begin(), t->after.end(), done), t->after.end());
	pending.push_back(t);
	undone++;
	switch (mode()) {
	case EARLY: wait(t); break;
	case RANDOM:
		if (random_number() % 4 == 0) run_needed(Task(pending[random_number() % pending.size()]), false);
		break;
	case LATE: break;
	}
	while (undone > MOST) wait(pending.front()); /* clean leaves one that is not done in front */
	clean();
}

bool any(const std::function<bool(const Work &)> &f) {
	return std::any_of(pending.begin(), pending.end(), [&](const Task &t) { return !t->done && f(*t); });
}

} // namespace igc
