//go:build gpu

// Package emulator runs a package's tests on a CUDA driver without a GPU. It builds
// the driver from this folder's C++ and the package's kernels. The top of driver.cpp
// says what the driver checks and which variables control it.
package emulator

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"sync/atomic"
	"syscall"
	"testing"
)

// ErrNoCompiler is what Build returns if there is no C++ compiler.
var ErrNoCompiler = errors.New("no C++ compiler for the emulated GPU")

// seedVariable chooses the order of what may happen in any order.
const seedVariable = "IGC_EMULATED_SEED"

// Main is a TestMain. It starts the test program again, with the path of the
// emulated driver for the kernels (*.cu) of a folder in IGC_CUDA_LIBRARY, because
// the library is opened before any test runs. If that variable is set already, or
// IGC_REQUIRE_GPU=1, the tests use the devices that there are. Without a compiler
// they are skipped, or with IGC_REQUIRE_EMULATOR=1 they fail. What the emulated
// driver may do in any order it does in another one each time; tests that fail
// print the seed.
func Main(m *testing.M, kernels string) {
	if os.Getenv("IGC_CUDA_LIBRARY") != "" || os.Getenv("IGC_REQUIRE_GPU") == "1" {
		code := m.Run()
		if seed := os.Getenv(seedVariable); code != 0 && seed != "" {
			fmt.Fprintf(os.Stderr, "emulated GPU: %s=%s chooses the same orders again\n", seedVariable, seed)
		}
		os.Exit(code)
	}
	library, err := Build(kernels)
	if errors.Is(err, ErrNoCompiler) && os.Getenv("IGC_REQUIRE_EMULATOR") != "1" {
		fmt.Println("skipped:", err)
		os.Exit(0)
	}
	if err == nil {
		var self string
		if self, err = os.Executable(); err == nil {
			env := append(os.Environ(), "IGC_CUDA_LIBRARY="+library)
			if os.Getenv(seedVariable) == "" {
				env = append(env, fmt.Sprintf("%s=%d", seedVariable, rand.Uint32()))
			}
			err = syscall.Exec(self, os.Args, env)
		}
	}
	fmt.Fprintln(os.Stderr, "emulated GPU:", err)
	os.Exit(1)
}

var injected atomic.Int32

// Inject asks the emulated driver for a fault, until the test ends. The variables
// and what they ask for are in faults.h; the driver counts from this call on. On a
// real GPU the test is skipped.
func Inject(t testing.TB, variable, fault string) {
	t.Helper()
	if os.Getenv("IGC_REQUIRE_GPU") == "1" {
		t.Skip("only the emulated GPU has faults on request")
	}
	t.Setenv(variable, fmt.Sprintf("%s#%d", fault, injected.Add(1)))
}

// Build makes the emulated driver with the kernels of a folder and returns the path
// of the library. It lies in the user's cache folder, under a hash of its sources.
func Build(kernels string) (string, error) {
	compiler := os.Getenv("CXX")
	if compiler == "" {
		compiler = "g++"
	}
	if _, err := exec.LookPath(compiler); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCompiler, err)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	gpu := filepath.Join(root, "trainer", "gpu")
	if kernels, err = filepath.Abs(kernels); err != nil {
		return "", err
	}

	hash := sha256.New()
	version, err := exec.Command(compiler, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", compiler, err)
	}
	hash.Write(version)
	hash.Write(processor()) // it is compiled for this processor
	var files []string
	for _, pattern := range []string{
		gpu + "/emulator/*.cpp", gpu + "/emulator/*.h", gpu + "/emulator/build.sh", gpu + "/driver/include/*.h",
		gpu + "/kernels/*.h", kernels + "/*.h", kernels + "/*.cu",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	sort.Strings(files)
	for _, name := range files {
		if err := hashFile(hash, name); err != nil {
			return "", err
		}
	}

	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	folder := filepath.Join(cache, "igcsearch-emulator", fmt.Sprintf("%x", hash.Sum(nil))[:24])
	library := filepath.Join(folder, "libigc_emulated.so")
	if _, err := os.Stat(library); err == nil {
		return library, nil
	}
	out, err := exec.Command("sh", gpu+"/emulator/build.sh", folder, kernels).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return library, nil
}

func hashFile(to io.Writer, name string) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	fmt.Fprintf(to, "%s %d\n", name, len(content))
	_, err = to.Write(content)
	return err
}

// processor is the lines of /proc/cpuinfo with the first processor's model and
// features; nil if there is no such file.
func processor() []byte {
	info, _ := os.ReadFile("/proc/cpuinfo")
	var lines []byte
	for line := range bytes.Lines(info) {
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
		for _, key := range []string{"model", "flags", "Features"} {
			if bytes.HasPrefix(line, []byte(key)) {
				lines = append(lines, line...)
			}
		}
	}
	return lines
}

// moduleRoot is the folder with the go.mod, above the working folder: tests run in
// the folder of their package.
func moduleRoot() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("no go.mod above the working folder")
		}
		folder = parent
	}
}
