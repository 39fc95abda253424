#!/bin/sh
# usage: toolkit.sh DIR
#
# Puts a CUDA 11.8 compiler into DIR, from Debian's packages, without installing anything in the system:
# DIR/nvcc-run, DIR/ptxas-run and DIR/nvdisasm-run are used like nvcc, ptxas and nvdisasm, DIR/include is the place of
# NVIDIA's headers and DIR/stubs that of the libraries to link. Needs apt (any Debian or Ubuntu, x86-64; root or not), g++, 870 MB of
# network and for a while 1.1 GB of disk; 200 MB stay. A DIR that is complete already is left alone.
#
# Exit code 3, with one line that says why, if the packages cannot be had here.
set -eu
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
without() { echo "no CUDA toolkit: $*"; exit 3; }

# These very files: a later compiler writes other PTX.
version=11.8.89~11.8.0-5~deb12u1
sums="
32147ac62a9c113ba4336949d03be31db3dd84a6849398383d88b12cf69b2187  libnvvm4_${version}_amd64.deb
dc63bf2fb94aaaf903e9bad0c35f631266077d016b34329ec7af456bd7fed5ec  nvidia-cuda-dev_${version}_amd64.deb
d1156026e704fe0368b6295db06224ed00a727966fb13454f34e3f3102db0457  nvidia-cuda-toolkit_${version}_amd64.deb"

mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ -e "$dir/complete" ] && [ -e "$dir/nvdisasm-run" ] && exit 0
[ "$(uname -sm)" = "Linux x86_64" ] || without "this is $(uname -sm), the packages are for Linux x86_64"
for tool in apt-get dpkg sha256sum g++; do
	command -v $tool >/dev/null || without "$tool is not installed"
done

apt=$dir/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -e $keys ]; then trust=signed-by=$keys; else trust=trusted=yes; fi # Ubuntu has no such keys; the sums above decide
echo "deb [arch=amd64 $trust] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} bookworm non-free" > "$apt/sources.list"
get() {
	apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root \
		-o APT::Update::Error-Mode=any "$@" >"$apt/log" 2>&1 || without "apt-get $*: $(grep -v '^ ' "$apt/log" | tail -n 1)"
}
get update
cd "$apt/debs"
get download libnvvm4=$version nvidia-cuda-dev=$version nvidia-cuda-toolkit=$version
# apt writes a colon of a version as %3a; there is none in these.
echo "$sums" | grep . | sha256sum --quiet --check >&2 || without "the packages are not those with the sums in $0"

# The libraries of nvidia-cuda-dev are two gigabytes that only a program of the runtime API needs.
root=$dir/root
mkdir -p "$root"
dpkg --fsys-tarfile libnvvm4_*.deb | tar x -C "$root" ./usr/lib
dpkg --fsys-tarfile nvidia-cuda-dev_*.deb | tar x -C "$root" ./usr/include ./usr/lib/x86_64-linux-gnu/stubs
dpkg --fsys-tarfile nvidia-cuda-toolkit_*.deb | tar x -C "$root" ./usr/lib/nvidia-cuda-toolkit ./usr/include \
	./usr/bin/ptxas ./usr/bin/fatbinary ./usr/bin/cudafe++ ./usr/bin/nvlink ./usr/bin/cuobjdump \
	./usr/bin/nvdisasm ./usr/bin/bin2c
cd "$dir"
rm -rf "$apt"

tools=$root/usr/lib/nvidia-cuda-toolkit
rm -f "$tools/bin/nvcc.profile" # a link into /etc
cat > "$tools/bin/nvcc.profile" <<end
NVVMIR_LIBRARY_DIR = $tools/libdevice
PATH += $tools/bin:$root/usr/bin:
INCLUDES += -I$root/usr/include \$(_SPACE_)
end
ln -sfn root/usr/include include
ln -sfn root/usr/lib/x86_64-linux-gnu/stubs stubs
libraries=$root/usr/lib/x86_64-linux-gnu
# Debian's own g++ and gcc in that folder are scripts that look for an older compiler. The machine's g++ is looked up at each
# call: another one may have come since.
cat > nvcc-run <<end
#!/bin/sh
LD_LIBRARY_PATH=$libraries exec $tools/bin/nvcc -ccbin "\${NVCC_CCBIN:-\$(command -v g++)}" -allow-unsupported-compiler "\$@"
end
for tool in ptxas nvdisasm; do
	cat > $tool-run <<end
#!/bin/sh
exec $root/usr/bin/$tool "\$@"
end
done
chmod +x nvcc-run ptxas-run nvdisasm-run
touch complete
