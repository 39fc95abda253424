package kernel

// #include "igc.h"
import "C"

import (
	"errors"
	"runtime"
	"time"
	"unsafe"
)

// Team is a number of threads that share the blocks of a batch, and their
// instruction set. An op has one call for each block. No sum crosses blocks, so the
// results do not depend on the number of threads. A team is not safe for concurrent
// use. Different teams may be used at the same time.
type Team struct {
	isa     ISA
	threads int
	c       *C.igc_team
	// The calls of an op as C takes them. They are kept because a step must not
	// allocate.
	convs []C.igc_conv
	heads []C.igc_head
	adds  []C.igc_add
	maxes []C.igc_max
	sums  []C.igc_sum
}

// NewTeam starts a team of n threads, with the caller's as one of them. Each has
// scratch floats of memory from the arena: the largest ScratchLen of its
// convolutions. Close the team before the arena is freed. NewTeam panics with a
// MemoryError.
func NewTeam(a *Arena, isa ISA, n, scratch int) (*Team, error) {
	n = max(n, 1)
	each := (scratch + Lanes - 1) / Lanes * Lanes // whole vectors
	c := C.igc_team_new(C.int(isa), C.int(n), floats(a.Floats(n*each), n*each), C.long(each))
	if c == nil {
		return nil, errors.New("the system starts no more threads, or has no memory for them")
	}
	return &Team{isa: isa, threads: n, c: c}, nil
}

// Close ends the threads. A second call does nothing.
func (t *Team) Close() {
	if t.c != nil {
		C.igc_team_free(t.c)
		t.c = nil
	}
}

// ISA returns the instruction set.
func (t *Team) ISA() ISA { return t.isa }

// Native reports whether the processor has an instruction that multiplies what the
// precision asks for. Where it has none, the kernels get the same bits by others.
func (t *Team) Native(p Precision) bool { return p == F32 || C.igc_team_native(t.c, p.c()) != 0 }

// Emulate makes the team compute a precision of bfloat16 without the instruction that
// Native is about, as on a processor that lacks it: with AMX only that of AMX, with BF16
// that of both. Tests compare the bits.
func (t *Team) Emulate(p Precision) { C.igc_team_emulate(t.c, p.c()) }

// Threads returns the number of threads.
func (t *Team) Threads() int { return t.threads }

// Forward computes Z, Sum and SumSq of each call's block.
func (t *Team) Forward(calls []Conv) {
	C.igc_conv_forward(t.c, put(&t.convs, calls, (*Conv).forward), C.long(len(calls)))
}

// Backward computes GX, GSum, GXSum, DWP and DWS.
func (t *Team) Backward(calls []Conv) {
	C.igc_conv_backward(t.c, put(&t.convs, calls, (*Conv).backward), C.long(len(calls)))
}

// PoolForward computes Pool, Open and OpenX from X, Scale and Shift.
func (t *Team) PoolForward(calls []Head) {
	C.igc_pool_forward(t.c, put(&t.heads, calls, (*Head).poolForward), C.long(len(calls)))
}

// PoolBackward computes GX, GSum and GXSum from DPool, Open and OpenX.
func (t *Team) PoolBackward(calls []Head) {
	C.igc_pool_backward(t.c, put(&t.heads, calls, (*Head).poolBackward), C.long(len(calls)))
}

// LinearForward computes Logits from Pool, WL and Bias.
func (t *Team) LinearForward(calls []Head) {
	C.igc_linear_forward(t.c, put(&t.heads, calls, (*Head).linearForward), C.long(len(calls)))
}

// LinearBackward computes DWL, DBias and DPool from DLogits.
func (t *Team) LinearBackward(calls []Head) {
	C.igc_linear_backward(t.c, put(&t.heads, calls, (*Head).linearBackward), C.long(len(calls)))
}

// CrossEntropy computes Loss and DLogits from Logits and Labels. It panics at a
// label that is not a class.
func (t *Team) CrossEntropy(calls []Head) {
	C.igc_xent(t.c, put(&t.heads, calls, (*Head).crossEntropy), C.long(len(calls)))
}

// AddForward computes Out.
func (t *Team) AddForward(calls []Add) {
	C.igc_add_forward(t.c, put(&t.adds, calls, (*Add).forward), C.long(len(calls)))
}

// AddBackward computes GX, GSum, GZSum and GXSum.
func (t *Team) AddBackward(calls []Add) {
	C.igc_add_backward(t.c, put(&t.adds, calls, (*Add).backward), C.long(len(calls)))
}

// MaxForward computes Out.
func (t *Team) MaxForward(calls []Max) {
	C.igc_max_forward(t.c, put(&t.maxes, calls, (*Max).forward), C.long(len(calls)))
}

// MaxBackward computes GX, GSum and GXSum.
func (t *Team) MaxBackward(calls []Max) {
	C.igc_max_backward(t.c, put(&t.maxes, calls, (*Max).backward), C.long(len(calls)))
}

// Sum adds from to to, activations of a precision. Each thread takes a piece of whole
// cache lines.
func (t *Team) Sum(p Precision, to, from []float32) {
	n := (len(to)/t.threads + Lanes) / Lanes * Lanes
	t.sums = t.sums[:0]
	for at := 0; at < len(to); at += n {
		end := min(at+n, len(to))
		t.sums = append(t.sums, C.igc_sum{to: floats(to[at:end], end-at), from: floats(from[at:end], end-at),
			n: C.long(end - at), bf16: p.c()})
	}
	C.igc_sums(t.c, unsafe.SliceData(t.sums), C.long(len(t.sums)))
}

// put writes the calls into list as C takes them, and returns the first.
func put[Call, CCall any](list *[]CCall, calls []Call, c func(*Call) CCall) *CCall {
	*list = (*list)[:0]
	for i := range calls {
		*list = append(*list, c(&calls[i]))
	}
	return unsafe.SliceData(*list)
}

// Peak returns how many operations a second the threads do together in
// multiply–adds of a precision that use no memory: the best of five tries of about
// 20 ms.
func (t *Team) Peak(p Precision) (flops float64) {
	for range 5 {
		flops = max(flops, t.Multiply(p, 20*time.Millisecond))
	}
	return flops
}

// Multiply lets every thread do multiply–adds of a precision that use no memory for
// about d, and returns the operations a second of all together.
func (t *Team) Multiply(p Precision, d time.Duration) (flops float64) {
	rounds := C.long(d / (4 * time.Nanosecond)) // a round takes 2 to 5 ns on cores of 3 to 4 GHz
	if n := runtime.NumCPU(); t.threads > n {
		rounds = max(1, rounds*C.long(n)/C.long(t.threads)) // they take turns
	}
	chains := [...]float64{12 * 4, 12 * 8, 16 * 16}[t.isa]
	switch p {
	case BF16:
		chains = C.BF16_CHAINS * 32
	case AMX:
		chains = C.TILE_STEPS * 16 * 16 * 32
		rounds = max(1, rounds/5) // of 16 cycles for each step
		if !t.Native(p) {
			rounds = max(1, rounds/5)
		}
	}
	if !t.Native(p) { // pairs take several instructions, which generic code does without registers
		rounds = max(1, rounds/[...]C.long{50, 10, 4}[t.isa])
	}
	seconds := t.probe(func(int) C.igc_probe { return C.igc_probe{rounds: rounds, bf16: p.c()} })
	return 2 * chains * float64(rounds) * float64(t.threads) / seconds
}

// Bandwidth returns how many bytes a second the threads together read and write
// when they copy 256 MB, more than caches hold: the best of five tries. They store
// past the caches, as the kernels do. It panics with a MemoryError.
func (t *Team) Bandwidth() (bytes float64) {
	n := 32 << 20 / t.threads / Lanes * Lanes // floats of a thread, each way
	var a Arena
	defer a.Free()
	m := a.Floats(2 * n * t.threads)
	for i := range m {
		m[i] = 1 // otherwise all addresses would mean the same page of zeros
	}
	for range 5 {
		seconds := t.probe(func(thread int) C.igc_probe {
			at := m[2*n*thread:][:2*n]
			return C.igc_probe{src: floats(at[:n], n), dst: floats(at[n:], n), n: C.long(n)}
		})
		bytes = max(bytes, 8*float64(n*t.threads)/seconds)
	}
	return bytes
}

// Micro is one of the kernels that work on one row and take nearly all the time. The
// gradient of a convolution's input has no kernel of its own: it is a convolution
// with turned weights.
type Micro int

// The micro-kernels, as C numbers them.
const (
	Primary       Micro = C.IGC_PRIMARY
	Secondary     Micro = C.IGC_SECONDARY
	PrimaryGrad   Micro = C.IGC_PRIMARY_GRAD // of the weights
	SecondaryGrad Micro = C.IGC_SECONDARY_GRAD
)

func (m Micro) String() string {
	return [...]string{"primary", "secondary", "primary weights", "secondary weights"}[m]
}

// Row lets every thread run a micro-kernel n times on one row of 16 pictures in its
// caches, and returns the operations a second of all together.
func (t *Team) Row(g Geometry, m Micro, n int) (flops float64) {
	calls := make([]C.igc_rows, t.threads)
	for i := range calls {
		calls[i] = C.igc_rows{conv: g.c(), micro: C.int(m), n: C.long(n)}
	}
	_, w := g.Size()
	weights := g.PrimaryLen()
	if m == Secondary || m == SecondaryGrad {
		weights = g.MixesLen()
	}
	begin := time.Now()
	C.igc_row(t.c, unsafe.SliceData(calls), C.long(t.threads))
	return 2 * float64(weights*w*Lanes) * float64(n*t.threads) / time.Since(begin).Seconds()
}

// probe runs one probe on each thread and returns the seconds until all are done.
func (t *Team) probe(p func(thread int) C.igc_probe) (seconds float64) {
	calls := make([]C.igc_probe, t.threads)
	for i := range calls {
		calls[i] = p(i)
	}
	begin := time.Now()
	C.igc_probe_all(t.c, unsafe.SliceData(calls), C.long(t.threads))
	return time.Since(begin).Seconds()
}
