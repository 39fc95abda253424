package trainer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"igcsearch/search"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// A checkpoint is
//
//	"igcckpt1", instruction set, pair L and M, seed, epochs finished (uint32
//	each), then for each tensor: length of the name (uint32), the name,
//	number of values (uint32), the values (float32)
//
// all little-endian: parameters, "velocity/" + name of each, running
// statistics. Seed and epoch are the position of the random numbers. The
// instruction set is there because each has bits of its own: a training that
// changed it half-way would be the result of neither.
const checkpointMagic = "igcckpt1"

// tensors lists what a checkpoint holds, in its order.
func tensors(m *graph.Model) []graph.Stat {
	var list []graph.Stat
	for _, p := range m.Params {
		list = append(list, graph.Stat{Name: p.Name, Value: p.Value}, graph.Stat{Name: "velocity/" + p.Name, Value: p.Velocity})
	}
	return append(list, m.Stats...)
}

// header is what says whose checkpoint it is.
func header(isa kernel.ISA, job search.Job, epoch int) []byte {
	b := []byte(checkpointMagic)
	for _, v := range []int{int(isa), job.System.Pair().L, job.System.Pair().M, job.Seed, epoch} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return b
}

func state(m *graph.Model, job search.Job, epoch int) []byte {
	b := header(m.Team().ISA(), job, epoch)
	for _, t := range tensors(m) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Name)))
		b = append(b, t.Name...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Value)))
		for _, v := range t.Value {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}

// restore sets the model to a checkpoint of the same job. After an error the
// model is neither here nor there.
func restore(m *graph.Model, job search.Job, c *search.Checkpoint) error {
	err := decode(tensors(m), header(m.Team().ISA(), job, c.Epoch), c.State)
	if other, ok := madeBy(c.State); err != nil && ok && other != m.Team().ISA() {
		err = fmt.Errorf("it was made with %v, this run has %v: set IGC_ISA=%v to go on, or start anew under another name or in another database", other, m.Team().ISA(), other)
	}
	if err != nil {
		return fmt.Errorf("checkpoint of %v seed %d after epoch %d: %w", job.System.Label(), job.Seed, c.Epoch, err)
	}
	return nil
}

// madeBy returns the instruction set in a checkpoint's header.
func madeBy(b []byte) (kernel.ISA, bool) {
	n := len(checkpointMagic)
	if len(b) < n+4 || string(b[:n]) != checkpointMagic {
		return 0, false
	}
	isa := kernel.ISA(binary.LittleEndian.Uint32(b[n:]))
	return isa, isa >= kernel.Portable && isa <= kernel.AVX512
}

func decode(into []graph.Stat, header, b []byte) error {
	if len(b) < len(header) || string(b[:len(header)]) != string(header) {
		return errors.New("it is of another trial or format")
	}
	b = b[len(header):]
	number := func() int {
		if len(b) < 4 {
			b = nil
			return -1
		}
		n := binary.LittleEndian.Uint32(b)
		b = b[4:]
		return int(n)
	}
	for _, t := range into {
		n := number()
		if n != len(t.Name) || len(b) < n || string(b[:n]) != t.Name {
			return fmt.Errorf("tensor %s is missing", t.Name)
		}
		b = b[n:]
		if n = number(); n != len(t.Value) || len(b) < 4*n {
			return fmt.Errorf("tensor %s is cut off or has another size", t.Name)
		}
		for i := range t.Value {
			t.Value[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
		b = b[4*n:]
	}
	if len(b) > 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return nil
}
