package dataset

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"igcsearch/search/regular"
)

// CIFAR pictures are 32×32.
const (
	cifarSide   = 32
	cifarPixels = Channels * cifarSide * cifarSide // bytes of a picture
)

// format is a data set in files of fixed-size records: label bytes, then a
// picture (C, H, W). The layout is described at
// https://www.cs.toronto.edu/~kriz/cifar.html.
type format struct {
	name    string
	get     string // its name for Get
	folder  string // of the files, in the official archive
	archive string // the address of the official archive
	md5     string // of the archive, from the same page
	// archiveBytes is the archive's size.
	archiveBytes int64
	python       pythonVersion
	// versions are the folders and archives of the set's other versions, which Open
	// does not read, and what they are.
	versions map[string]string
	train    []string
	test     string
	names    string   // a line for each class
	others   []string // further files of the archive that Open does not read

	trainRecords, testRecords int // in each file

	// sums are the SHA-256 of the published files, as torchvision for Ruby and others
	// list them.
	sums map[string]string

	// labels holds the number of classes of each label byte; label says which
	// byte is in use.
	labels []int
	label  int
}

var cifar10 = format{
	name: "cifar10", get: "cifar10", folder: "cifar-10-batches-bin",
	archive: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
	md5:     "c32a1d4ab5d03f1284b67883e8d87530", archiveBytes: 170052171,
	python:   cifar10Python,
	versions: map[string]string{"cifar-10-batches-mat": "MATLAB", "cifar-10-matlab.tar.gz": "MATLAB"},
	train:    []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
	test:     "test_batch.bin", names: "batches.meta.txt", others: []string{"readme.html"},
	trainRecords: 10000, testRecords: 10000,
	labels: []int{10},
	sums: map[string]string{
		"data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
		"data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
		"data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
		"data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
		"data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
		"test_batch.bin":   "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
	},
}

var cifar100 = format{
	name: "cifar100", get: "cifar100", folder: "cifar-100-binary",
	archive: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
	md5:     "03b5dce01913d631647c71ecec9e9cb8", archiveBytes: 168513733,
	python:   cifar100Python,
	versions: map[string]string{"cifar-100-matlab": "MATLAB", "cifar-100-matlab.tar.gz": "MATLAB"},
	train:    []string{"train.bin"},
	test:     "test.bin", names: "fine_label_names.txt", others: []string{"coarse_label_names.txt"},
	trainRecords: 50000, testRecords: 10000,
	labels: []int{20, 100}, // coarse, fine
	label:  1,
	sums: map[string]string{
		"train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
		"test.bin":  "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
	},
}

// cifar100Coarse is CIFAR-100 with its 20 superclasses, from the same files.
var cifar100Coarse = func() format {
	f := cifar100
	f.name, f.label = "cifar100-coarse", 0
	f.names, f.others = "coarse_label_names.txt", []string{"fine_label_names.txt"}
	f.python.names = "coarse_label_names"
	return f
}()

func (f format) classes() int     { return f.labels[f.label] }
func (f format) recordBytes() int { return len(f.labels) + cifarPixels }

// dataFiles returns the record files and how many records each has.
func (f format) dataFiles() map[string]int {
	files := map[string]int{f.test: f.testRecords}
	for _, name := range f.train {
		files[name] = f.trainRecords
	}
	return files
}

// place is a folder with the files of a set: of its Python version, or of the binary
// one.
type place struct {
	dir    string
	python bool
}

func openCIFAR(ctx context.Context, f format, o Options) (*Set, error) {
	at, err := f.locate(o.Dir)
	if err != nil {
		return nil, err
	}
	found, err := f.read(ctx, at)
	if err != nil {
		return nil, err
	}
	train, test := f.train, f.test
	if at.python {
		train, test = f.python.train, f.python.test
	}
	s := &Set{Name: o.Name, Classes: found.classes, C: Channels, H: cifarSide, W: cifarSide,
		Unofficial: found.unofficial, testFiles: []pictureFile{{test, f.testRecords}}}
	for _, name := range train {
		s.trainFiles = append(s.trainFiles, pictureFile{name, f.trainRecords})
	}
	if err := s.split(o, found.train, found.test, balanced); err != nil {
		return nil, err
	}
	return s, nil
}

// locate returns the folder that has files of the set: dir itself or the archive's
// folder in it. The binary version comes before the Python version. A folder with
// only some of the files is returned too; read names the missing ones. The error is a
// *MissingError if there are none.
func (f format) locate(dir string) (place, error) {
	at, err := locate(f.name, f.get, dir, f.folder, append([]string{f.test}, f.train...))
	var missing *MissingError
	if !errors.As(err, &missing) || dir == "" {
		return place{dir: at}, err
	}
	nested := filepath.Join(dir, f.python.folder)
	for _, name := range append([]string{f.python.meta, f.python.test}, f.python.train...) {
		if exists(filepath.Join(nested, name)) {
			return place{nested, true}, nil
		}
	}
	// Of CIFAR-100 the other files are called train and test, like the folders of
	// other sets.
	if exists(filepath.Join(dir, f.python.meta)) {
		return place{dir, true}, nil
	}
	for _, name := range []string{path.Base(f.archive), f.python.archive} {
		if archive := filepath.Join(dir, name); exists(archive) {
			missing.Packed = true
			missing.Err = fmt.Errorf("%w, and %s is not unpacked", missing.Err, archive)
			return place{}, missing
		}
	}
	if other, what := f.otherVersion(dir); other != "" {
		missing.Err = fmt.Errorf("%w; %s is the version for %s, which cannot be read: "+
			"the binary or the Python version is needed", missing.Err, other, what)
	}
	return place{}, missing
}

// otherVersion returns a file or folder with a version of the set that cannot be
// read, and for what this version is; "" if there is none.
func (f format) otherVersion(dir string) (at, what string) {
	for _, name := range slices.Sorted(maps.Keys(f.versions)) {
		for _, at := range []string{filepath.Join(dir, name), dir} {
			if filepath.Base(at) == name && exists(at) {
				return at, f.versions[name]
			}
		}
	}
	return huggingFace(dir)
}

// huggingFace returns a file of HuggingFace's datasets: they lie in dir, in
// dir/cifar100 or in dir/cifar100/train.
func huggingFace(dir string) (at, what string) {
	for _, ending := range []string{"parquet", "arrow"} {
		for _, folder := range []string{"", "*", "*/*"} {
			found, err := filepath.Glob(filepath.Join(globEscape.Replace(dir), folder, "*."+ending))
			if err == nil && len(found) > 0 {
				return found[0], "HuggingFace's datasets (" + ending + ")"
			}
		}
	}
	return "", ""
}

var globEscape = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// locate returns dir or else the folder in it, if it has one of the files of a set.
// Get downloads the set by the name get.
func locate(set, get, dir, folder string, files []string) (string, error) {
	if dir == "" {
		return "", missing(fmt.Errorf("%s: %w: no data folder is named", set, fs.ErrNotExist), get, "")
	}
	nested := filepath.Join(dir, folder)
	for _, place := range []string{dir, nested} {
		for _, name := range files {
			_, err := os.Stat(filepath.Join(place, name))
			if err == nil {
				return place, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("%s: %w", set, err)
			}
		}
	}
	err := fmt.Errorf("%s: %w: found no %s in %s or %s", set, fs.ErrNotExist, files[0], dir, nested)
	return "", missing(err, get, "")
}

// cifarFiles are the contents of the files of a set.
type cifarFiles struct {
	classes     []string
	train, test Split
	unofficial  []string // files with another checksum than the published ones
}

// read returns all pictures of the set.
func (f format) read(ctx context.Context, at place) (all cifarFiles, err error) {
	if at.python {
		return f.readPython(ctx, at.dir)
	}
	dir := at.dir
	fail := func(err error) (cifarFiles, error) {
		return cifarFiles{}, fmt.Errorf("%s: %w", f.name, missing(err, f.get, "a whole set"))
	}
	all.classes, err = f.readNames(filepath.Join(dir, f.names))
	if err != nil {
		return fail(err)
	}
	all.train.grow(len(f.train) * f.trainRecords)
	all.test.grow(f.testRecords)
	for _, name := range append(slices.Clone(f.train), f.test) {
		records, into := f.trainRecords, &all.train
		if name == f.test {
			records, into = f.testRecords, &all.test
		}
		sum, err := f.readFile(ctx, filepath.Join(dir, name), records, into)
		if err != nil {
			return fail(err)
		}
		if want, known := f.sums[name]; known && sum != want {
			all.unofficial = append(all.unofficial, name)
		}
	}
	return all, nil
}

// grow makes room for n CIFAR pictures.
func (s *Split) grow(n int) {
	s.Pixels = make([]byte, 0, n*cifarPixels)
	s.Labels = make([]uint16, 0, n)
}

// readFile also returns the SHA-256 of the file.
func (f format) readFile(ctx context.Context, path string, records int, into *Split) (sum string, err error) {
	file, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	// The reader would also notice a wrong size, but only at the end.
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	want := int64(records) * int64(f.recordBytes())
	if info.Size() != want {
		return "", fmt.Errorf("%s: ends at byte %d, want %d (%d records of %d bytes)", path, info.Size(), want, records,
			f.recordBytes())
	}
	h := sha256.New()
	err = f.readRecords(ctx, bufio.NewReaderSize(io.TeeReader(file, h), 1<<20), path, records, into)
	return hex.EncodeToString(h.Sum(nil)), err
}

// readRecords appends the given number of records to a split. r must end after them.
// Errors name the input as path.
func (f format) readRecords(ctx context.Context, r io.Reader, path string, records int, into *Split) error {
	want := records * f.recordBytes()
	labels := make([]byte, len(f.labels))
	for i := range records {
		if i%1000 == 0 && ctx.Err() != nil {
			return fmt.Errorf("read %s: %w", path, ctx.Err())
		}
		at := i * f.recordBytes()
		n, err := io.ReadFull(r, labels)
		if err == nil {
			for j, classes := range f.labels {
				if int(labels[j]) >= classes {
					return fmt.Errorf("%s: byte %d is %d, want a label from 0 to %d", path, at+j, labels[j], classes-1)
				}
			}
			start := len(into.Pixels)
			into.Pixels = append(into.Pixels, make([]byte, cifarPixels)...)
			into.Labels = append(into.Labels, uint16(labels[f.label]))
			var m int
			m, err = io.ReadFull(r, into.Pixels[start:])
			n += m
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("%s: ends at byte %d, want %d (%d records of %d bytes)", path, at+n, want, records,
				f.recordBytes())
		}
		if err != nil {
			return fmt.Errorf("read %s at byte %d: %w", path, at+n, err)
		}
	}
	var more [1]byte
	if _, err := io.ReadFull(r, more[:]); err == nil {
		return fmt.Errorf("%s: there are more bytes at %d, want the end there (%d records of %d bytes)", path, want,
			records, f.recordBytes())
	} else if err != io.EOF {
		return fmt.Errorf("read %s at byte %d: %w", path, want, err)
	}
	return nil
}

// maxNamesBytes bounds the file of class names; the longest has 816 bytes.
const maxNamesBytes = 1 << 20

// readNames reads the names of the classes, one on each line. It ignores empty lines
// at the end.
func (f format) readNames(path string) ([]string, error) {
	file, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxNamesBytes))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	names := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	if len(names) != f.classes() {
		return nil, fmt.Errorf("%s: has %d lines, want the names of %d classes", path, len(names), f.classes())
	}
	for i, name := range names {
		if name == "" {
			return nil, fmt.Errorf("%s: line %d is empty, want the name of class %d", path, i+1, i)
		}
	}
	return names, nil
}
