package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// unpickle reads the values in a pickle of Python (https://docs.python.org/3/library/pickle.html) as far as the Python
// versions of CIFAR have them: texts, whole numbers, lists, tuples, dictionaries, and arrays of numpy with bytes. A
// pickle is a program for a stack machine, which Python carries out. Here nothing is carried out: the calls by which
// numpy writes arrays are known, and any other call is an error. Objects that are not in these files are errors too, and
// so are more than most objects: a small file cannot fill the memory. Texts and arrays share the memory of the file, and
// what calls make of them has at most twice its bytes.
//
// The packages for Go do not serve: og-rek refuses the instruction BUILD, which every array has, and gopickle allocates
// what a length in the file says before it reads that much.
func unpickle(file []byte, most int) (any, error) {
	p := pickle{file: file, most: most, room: 2 * len(file), memo: map[uint32]any{}}
	for {
		start := p.at
		done, err := p.step()
		if err != nil {
			return nil, fmt.Errorf("byte %d: %w", start, err)
		}
		if done {
			return p.stack[0], nil
		}
	}
}

// pickle is a machine on its way through a file.
type pickle struct {
	file  []byte
	at    int
	most  int // objects that may still be made
	room  int // bytes that calls may still make
	stack []any
	marks []int // lengths of the stack
	memo  map[uint32]any
}

// These are the values, beside nil, bool, int64 and tuple. Bytes and texts are both a pickleText, because the two were one
// type in Python 2.
type (
	pickleText   []byte
	pickleTuple  []any
	pickleList   struct{ of []any }
	pickleDict   struct{ of map[string]any }
	pickleGlobal string // the name of a function or a class, "numpy.dtype"
	pickleType   struct{ name string }
	// pickleArray is an array of bytes, (shape), with the last index running fastest.
	pickleArray struct {
		shape []int
		data  []byte
	}
)

// The functions that numpy's arrays call have other modules in numpy 2.
var pickleCalls = map[string]string{
	"numpy.core.multiarray._reconstruct":  "array",
	"numpy._core.multiarray._reconstruct": "array",
	"numpy.core.numeric._frombuffer":      "buffer",
	"numpy._core.numeric._frombuffer":     "buffer",
	"numpy.dtype":                         "dtype",
	"numpy.ndarray":                       "ndarray",
	"_codecs.encode":                      "encode",
}

// step carries out one instruction. done reports that it was the last one.
func (p *pickle) step() (done bool, err error) {
	code, err := p.take(1)
	if err != nil {
		return false, err
	}
	switch code[0] {
	case 0x80: // PROTO
		version, err := p.number(1)
		if err == nil && (version < 2 || version > 5) {
			err = fmt.Errorf("it has version %d of the pickle protocol, want 2 to 5", version)
		}
		return false, err
	case 0x95: // FRAME: says how much may be read ahead
		_, err := p.number(8)
		return false, err
	case '.': // STOP
		if len(p.stack) != 1 || len(p.marks) != 0 || p.at != len(p.file) {
			return false, fmt.Errorf("the pickle ends with %d values and %d bytes behind it, want one value and none",
				len(p.stack), len(p.file)-p.at)
		}
		return true, nil
	case '(': // MARK
		p.marks = append(p.marks, len(p.stack))
		return false, p.count(1)
	case 'N': // NONE
		return false, p.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		return false, p.push(code[0] == 0x88)
	case 'K', 'M', 'J', 0x8a: // BININT1, BININT2, BININT, LONG1
		return false, p.integer(code[0])
	case 'U', 'C', 0x8c: // SHORT_BINSTRING, SHORT_BINBYTES, SHORT_BINUNICODE
		return false, p.text(1)
	case 'T', 'B', 'X': // BINSTRING, BINBYTES, BINUNICODE
		return false, p.text(4)
	case 0x8e, 0x8d, 0x96: // BINBYTES8, BINUNICODE8, BYTEARRAY8
		return false, p.text(8)
	case 0x98: // READONLY_BUFFER: of bytes that are not changed here anyway
		return false, nil
	case 'c', 0x93: // GLOBAL, STACK_GLOBAL
		return false, p.global(code[0] == 'c')
	case ']': // EMPTY_LIST
		return false, p.push(&pickleList{})
	case '}': // EMPTY_DICT
		return false, p.push(&pickleDict{map[string]any{}})
	case ')': // EMPTY_TUPLE
		return false, p.push(pickleTuple{})
	case 0x85, 0x86, 0x87, 't', 'a', 'e', 's', 'u', 'R', 'b':
		return false, p.collect(code[0])
	case 'q', 'r', 0x94, 'h', 'j':
		return false, p.remember(code[0])
	}
	return false, fmt.Errorf("it has the instruction 0x%02x, which the published files do not have", code[0])
}

// take returns the next n bytes of the file.
func (p *pickle) take(n uint64) ([]byte, error) {
	if n > uint64(len(p.file)-p.at) {
		return nil, fmt.Errorf("%d bytes are announced, but the file ends after %d", n, len(p.file)-p.at)
	}
	taken := p.file[p.at : p.at+int(n)]
	p.at += int(n)
	return taken, nil
}

// number reads a number of so many bytes.
func (p *pickle) number(bytes uint64) (uint64, error) {
	b, err := p.take(bytes)
	if err != nil {
		return 0, err
	}
	var whole [8]byte
	copy(whole[:], b)
	return binary.LittleEndian.Uint64(whole[:]), nil
}

// count notes that n more objects are made.
func (p *pickle) count(n int) error {
	if p.most -= n; p.most < 0 {
		return fmt.Errorf("it has more objects than the published files")
	}
	return nil
}

// made notes the bytes of what a call has made.
func (p *pickle) made(v any) error {
	switch v := v.(type) {
	case pickleText:
		p.room -= len(v)
	case *pickleArray:
		p.room -= len(v.data)
	}
	if p.room < 0 {
		return fmt.Errorf("it makes more bytes than it has")
	}
	return nil
}

func (p *pickle) push(v any) error {
	p.stack = append(p.stack, v)
	return p.count(1)
}

// pop removes n values from the stack and returns them. They lie above the last mark.
func (p *pickle) pop(n int) ([]any, error) {
	bottom := 0
	if len(p.marks) > 0 {
		bottom = p.marks[len(p.marks)-1]
	}
	if len(p.stack)-bottom < n {
		return nil, fmt.Errorf("it wants %d values of the stack, which has %d", n, len(p.stack)-bottom)
	}
	popped := p.stack[len(p.stack)-n:]
	p.stack = p.stack[:len(p.stack)-n]
	return popped, nil
}

// popMark removes the last mark, and all values above it, which it returns.
func (p *pickle) popMark() ([]any, error) {
	if len(p.marks) == 0 {
		return nil, fmt.Errorf("it wants a mark on the stack, which has none")
	}
	at := p.marks[len(p.marks)-1]
	p.marks = p.marks[:len(p.marks)-1]
	popped := p.stack[at:]
	p.stack = p.stack[:at]
	return popped, nil
}

func (p *pickle) integer(code byte) error {
	size := map[byte]uint64{'K': 1, 'M': 2, 'J': 4}[code]
	if code == 0x8a {
		var err error
		if size, err = p.number(1); err == nil && size > 8 {
			err = fmt.Errorf("it has a number of %d bytes, want at most 8", size)
		}
		if err != nil {
			return err
		}
	}
	n, err := p.number(size)
	if err != nil {
		return err
	}
	if signed := code == 'J' || code == 0x8a; signed && size > 0 {
		shift := 64 - 8*size
		return p.push(int64(n<<shift) >> shift)
	}
	return p.push(int64(n))
}

// text pushes a text or bytes whose length is a number of so many bytes.
func (p *pickle) text(bytes uint64) error {
	n, err := p.number(bytes)
	if err != nil {
		return err
	}
	text, err := p.take(n)
	if err != nil {
		return err
	}
	return p.push(pickleText(text))
}

// global pushes the name of a function or class: as two lines, or from the stack.
func (p *pickle) global(lines bool) error {
	var parts []string
	if lines {
		for range 2 {
			line, _, found := bytes.Cut(p.file[p.at:], []byte("\n"))
			if !found || len(line) > 100 {
				return fmt.Errorf("it has a name that does not end")
			}
			p.at += len(line) + 1
			parts = append(parts, string(line))
		}
	} else {
		names, err := p.pop(2)
		if err != nil {
			return err
		}
		for _, name := range names {
			text, ok := name.(pickleText)
			if !ok || len(text) > 100 {
				return fmt.Errorf("the name of a function is no short text")
			}
			parts = append(parts, string(text))
		}
	}
	name := strings.Join(parts, ".")
	if pickleCalls[name] == "" {
		return fmt.Errorf("it names %s, which is not carried out: want plain values and arrays of numpy", shown(name))
	}
	return p.push(pickleGlobal(name))
}

// collect makes a tuple, puts values into a list or dictionary, makes an array or completes it.
func (p *pickle) collect(code byte) error {
	var values []any
	var err error
	switch code {
	case 't', 'e', 'u': // TUPLE, APPENDS, SETITEMS
		values, err = p.popMark()
	case 0x86, 's', 'R', 'b': // TUPLE2, SETITEM, REDUCE, BUILD
		values, err = p.pop(2)
	case 0x87: // TUPLE3
		values, err = p.pop(3)
	default: // TUPLE1, APPEND
		values, err = p.pop(1)
	}
	if err != nil {
		return err
	}
	switch code {
	case 't', 0x85, 0x86, 0x87:
		return p.push(append(pickleTuple(nil), values...))
	case 'R':
		v, err := p.reduce(values[0], values[1])
		if err == nil {
			err = p.made(v)
		}
		if err != nil {
			return err
		}
		return p.push(v)
	case 'b':
		err := build(values[0], values[1])
		if err == nil {
			err = p.made(values[0])
		}
		if err != nil {
			return err
		}
		return p.push(values[0])
	}
	if len(p.stack) == 0 {
		return fmt.Errorf("it puts values into nothing")
	}
	into := p.stack[len(p.stack)-1]
	if list, ok := into.(*pickleList); ok && (code == 'a' || code == 'e') {
		list.of = append(list.of, values...)
		return p.count(len(values))
	}
	dict, ok := into.(*pickleDict)
	if !ok || code == 'a' || code == 'e' || len(values)%2 != 0 {
		return fmt.Errorf("it puts values into something that is no list and no dictionary")
	}
	for i := 0; i < len(values); i += 2 {
		key, ok := values[i].(pickleText)
		if !ok {
			return fmt.Errorf("the key of a dictionary is no text")
		}
		dict.of[string(key)] = values[i+1]
	}
	return p.count(len(values))
}

// remember stores the top of the stack under a number, or pushes what is stored.
func (p *pickle) remember(code byte) error {
	k := uint64(len(p.memo)) // MEMOIZE
	var err error
	switch code {
	case 'q', 'h': // BINPUT, BINGET
		k, err = p.number(1)
	case 'r', 'j': // LONG_BINPUT, LONG_BINGET
		k, err = p.number(4)
	}
	if err != nil {
		return err
	}
	if code == 'h' || code == 'j' {
		v, known := p.memo[uint32(k)]
		if !known {
			return fmt.Errorf("it wants the value %d, which it has not stored", k)
		}
		return p.push(v)
	}
	if len(p.stack) == 0 {
		return fmt.Errorf("it stores a value of an empty stack")
	}
	p.memo[uint32(k)] = p.stack[len(p.stack)-1]
	return p.count(1)
}

// reduce makes what a call of numpy makes.
func (p *pickle) reduce(function, arguments any) (any, error) {
	name, _ := function.(pickleGlobal)
	args, _ := arguments.(pickleTuple)
	switch pickleCalls[string(name)] {
	case "array": // (numpy.ndarray, (0,), b"b"): BUILD completes it
		if len(args) == 3 && args[0] == pickleGlobal("numpy.ndarray") {
			return &pickleArray{}, nil
		}
	case "dtype": // ("u1", False, True)
		if len(args) >= 1 {
			if name, ok := args[0].(pickleText); ok {
				return pickleType{string(name)}, nil
			}
		}
	case "buffer": // (bytes, dtype, shape, "C")
		if len(args) == 4 {
			array := &pickleArray{}
			order, ok := args[3].(pickleText)
			if !ok || len(order) != 1 {
				break
			}
			return array, array.complete(args[2], args[1], order[0] == 'F', args[0])
		}
	case "encode": // ("text", "latin1"): bytes, as Python 3 writes them for Python 2
		if len(args) == 2 {
			text, ok := args[0].(pickleText)
			if by, _ := args[1].(pickleText); !ok || string(by) != "latin1" {
				break
			}
			return latin1(text)
		}
	}
	if name == "" {
		return nil, fmt.Errorf("it calls something that is no function")
	}
	return nil, fmt.Errorf("it calls %s with other arguments than numpy gives it", name)
}

// latin1 is the bytes of a text in UTF-8 whose characters are below 256.
func latin1(text []byte) (pickleText, error) {
	b := make([]byte, 0, len(text))
	for _, r := range string(text) {
		if r > 255 {
			return nil, fmt.Errorf("it has bytes with the character %q", r)
		}
		b = append(b, byte(r))
	}
	return b, nil
}

// build completes a value from its state.
func build(value, state any) error {
	s, _ := state.(pickleTuple)
	switch v := value.(type) {
	case pickleType: // (3, "|", None, …): the order of the bytes, which a type of one byte does not need
		if len(s) > 0 {
			return nil
		}
	case *pickleArray: // (1, shape, dtype, whether the first index runs fastest, bytes)
		if len(s) == 5 && v.shape == nil {
			first, ok := s[3].(bool)
			if ok {
				return v.complete(s[1], s[2], first, s[4])
			}
		}
	}
	return fmt.Errorf("it has the state of something that is no array")
}

// complete sets what an array has.
func (a *pickleArray) complete(shape, kind any, firstFastest bool, data any) error {
	sizes, _ := shape.(pickleTuple)
	content, ok := data.(pickleText)
	dtype, isType := kind.(pickleType)
	if !ok || !isType || strings.TrimLeft(dtype.name, "|") != "u1" {
		return fmt.Errorf("it has an array of the type %q, want bytes (u1)", shown(dtype.name))
	}
	n := 1
	for _, size := range sizes {
		k, ok := size.(int64)
		if !ok || k < 0 || k > 1<<31 || n > 1<<31 {
			return fmt.Errorf("it has an array with a wrong shape")
		}
		a.shape = append(a.shape, int(k))
		n *= int(k)
	}
	if len(sizes) == 0 || n != len(content) {
		return fmt.Errorf("it has an array of the shape %v with %d bytes", a.shape, len(content))
	}
	if firstFastest && len(sizes) != 2 {
		return fmt.Errorf("it has an array of %d dimensions whose first index runs fastest, want two", len(sizes))
	}
	a.data = content
	if firstFastest {
		rows, columns := a.shape[0], a.shape[1]
		a.data = make([]byte, n)
		for i := range content {
			a.data[i%rows*columns+i/rows] = content[i]
		}
	}
	return nil
}
