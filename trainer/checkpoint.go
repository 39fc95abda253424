package trainer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/interchange"
	"igcsearch/trainer/kernel"
)

// A checkpoint is
//
//	"igcckpt1", arithmetic, pair L and M, seed, epochs finished (uint32
//	each), then for each tensor: length of the name (uint32), the name,
//	number of values (uint32), the values (float32)
//
// all little-endian. The tensors are the parameters, each followed by
// "velocity/" + name and, if averages are kept, by "average/" + name; the running
// statistics; and, if precise statistics are measured, "precise/" + name of each,
// as of the last evaluation. Seed and epoch are the position of the random
// numbers. Each arithmetic has bits of its own, so a training must not change it
// half-way: its number is that of an instruction set, one of bfloat16Numbers, or a cudaCode.
const checkpointMagic = "igcckpt1"

// bfloat16Numbers are the arithmetics of the precisions of search.Bfloat16, which have the same
// bits with every instruction set.
var bfloat16Numbers = map[string]uint32{search.PrecisionBF16: 16, search.PrecisionAMX: 17}

// cudaCode is the arithmetic of a GPU: the device that its machine code is for, and the
// compiler of that code.
type cudaCode struct {
	sm           uint8 // 90 for sm_90
	driver       bool  // the compiler is a driver's; otherwise it is ptxas
	major, minor uint8 // its version
	tf32         bool  // search.PrecisionTF32
}

// In a checkpoint, bits 0 to 7 are the device, 16 to 23 and 24 to 31 the version.
const (
	cudaNumber = 1 << 8
	cudaDriver = 1 << 9
	cudaTF32   = 1 << 10
)

func (c cudaCode) number() uint32 {
	n := cudaNumber | uint32(c.sm) | uint32(c.major)<<16 | uint32(c.minor)<<24
	if c.driver {
		n |= cudaDriver
	}
	if c.tf32 {
		n |= cudaTF32
	}
	return n
}

func (c cudaCode) String() string {
	compiler := "ptxas"
	if c.driver {
		compiler = "driver"
	}
	name := fmt.Sprintf("cuda sm_%d (%s %d.%d)", c.sm, compiler, c.major, c.minor)
	if c.tf32 {
		return search.Recipe{Precision: search.PrecisionTF32}.Arithmetic(name)
	}
	return name
}

// numberOf is the number of an arithmetic in a checkpoint. It panics at a name that
// no engine has.
func numberOf(arithmetic string) uint32 {
	for i := kernel.Portable; i <= kernel.AVX512; i++ {
		if i.String() == arithmetic {
			return uint32(i)
		}
	}
	if n, ok := bfloat16Numbers[arithmetic]; ok {
		return n
	}
	var c cudaCode
	var compiler string
	if _, err := fmt.Sscanf(arithmetic, "cuda sm_%d (%s %d.%d)", &c.sm, &compiler, &c.major, &c.minor); err == nil {
		c.driver, c.tf32 = compiler == "driver", strings.HasSuffix(arithmetic, " "+search.PrecisionTF32)
		if c.String() == arithmetic {
			return c.number()
		}
	}
	panic(fmt.Sprintf("trainer: arithmetic %q", arithmetic))
}

// arithmeticOf is the name of a number in a checkpoint; "" if it has none.
func arithmeticOf(number uint32) string {
	if number <= uint32(kernel.AVX512) {
		return kernel.ISA(number).String()
	}
	for name, n := range bfloat16Numbers {
		if n == number {
			return name
		}
	}
	c := cudaCode{sm: uint8(number), driver: number&cudaDriver != 0, major: uint8(number >> 16), minor: uint8(number >> 24),
		tf32: number&cudaTF32 != 0}
	if c.number() != number || c.sm == 0 || c.major == 0 {
		return ""
	}
	return c.String()
}

// tensors lists the tensors of a checkpoint in their order.
func tensors(m *graph.Model) []graph.Stat {
	var list []graph.Stat
	for _, p := range m.Params {
		list = append(list, graph.Stat{Name: p.Name, Value: p.Value},
			graph.Stat{Name: "velocity/" + p.Name, Value: p.Velocity})
		if p.Average != nil {
			list = append(list, graph.Stat{Name: "average/" + p.Name, Value: p.Average})
		}
	}
	list = append(list, m.Stats...)
	for _, s := range m.Precise {
		list = append(list, graph.Stat{Name: "precise/" + s.Name, Value: s.Value})
	}
	return list
}

// evaluated lists copies of the parameters and statistics that an evaluation uses,
// in the order of the layers: averages, not weights, and precise statistics, not
// running ones, where the study has them.
func evaluated(m *graph.Model) []interchange.Tensor {
	var list []interchange.Tensor
	add := func(name string, data []float32, shape ...int) {
		list = append(list, interchange.Tensor{Name: name, Shape: shape, Data: slices.Clone(data)}) // the model's memory is freed later
	}
	for _, p := range m.Params {
		value := p.Value
		if p.Average != nil {
			value = p.Average
		}
		add(p.Name, value, p.Shape...)
	}
	stats := m.Stats
	if m.Precise != nil {
		stats = m.Precise
	}
	for _, s := range stats {
		add(s.Name, s.Value, len(s.Value))
	}
	return list
}

// header is the beginning of a checkpoint, which identifies the training.
func header(arithmetic string, job search.Job, epoch int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(checkpointMagic), numberOf(arithmetic))
	for _, v := range []int{job.System.Pair().L, job.System.Pair().M, job.Seed, epoch} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return b
}

// state is the checkpoint of an engine.
func state(e Engine, job search.Job, epoch int) ([]byte, error) {
	if err := e.Pull(); err != nil {
		return nil, err
	}
	b := header(e.Arithmetic(), job, epoch)
	for _, t := range tensors(e.Model()) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Name)))
		b = append(b, t.Name...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Value)))
		for _, v := range t.Value {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b, nil
}

// ArithmeticError says that a checkpoint was made with other arithmetic than that
// of the device that should continue from it. The names are those of
// Engine.Arithmetic.
type ArithmeticError struct{ Made, Ours string }

func (e ArithmeticError) Error() string {
	return fmt.Sprintf("it was made with %s, this run has %s", e.Made, e.Ours)
}

// restore sets the engine to a checkpoint of the same job. After an error the
// engine's state is undefined.
func restore(e Engine, job search.Job, c *search.Checkpoint) error {
	ours := e.Arithmetic()
	err := decode(tensors(e.Model()), header(ours, job, c.Epoch), c.State)
	if made, ok := madeBy(c.State); err != nil && ok && made != ours {
		err = ArithmeticError{Made: made, Ours: ours}
	}
	if err == nil {
		err = e.Push()
	}
	if err != nil {
		return fmt.Errorf("checkpoint of %v seed %d after epoch %d: %w", job.System.Label(), job.Seed, c.Epoch, err)
	}
	return nil
}

// madeBy returns the arithmetic in a checkpoint's header.
func madeBy(b []byte) (name string, ok bool) {
	n := len(checkpointMagic)
	if len(b) < n+4 || string(b[:n]) != checkpointMagic {
		return "", false
	}
	name = arithmeticOf(binary.LittleEndian.Uint32(b[n:]))
	return name, name != ""
}

func decode(into []graph.Stat, header, b []byte) error {
	if len(b) < len(header) || string(b[:len(header)]) != string(header) {
		return errors.New("it belongs to another trial or has another format")
	}
	b = b[len(header):]
	length := func() int {
		if len(b) < 4 {
			b = nil
			return -1
		}
		n := binary.LittleEndian.Uint32(b)
		b = b[4:]
		return int(n)
	}
	for _, t := range into {
		n := length()
		if n != len(t.Name) || len(b) < n || string(b[:n]) != t.Name {
			return fmt.Errorf("tensor %s is missing", t.Name)
		}
		b = b[n:]
		if n = length(); n != len(t.Value) || len(b) < 4*n {
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
