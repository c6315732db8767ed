#!/bin/sh
# keep-ptxas-table.sh FOLDER COMPILER ARGUMENT...: runs nvcc; what `ptxas -v` reports per kernel goes to
# FOLDER/<source>.txt as "kernel | architecture | registers ...", everything else to standard error.
folder=$1
shift
source=unknown
for argument in "$@"; do
  case $argument in *.cu) source=$(basename "$argument" .cu) ;; esac
done
mkdir -p "$folder"
report=$folder/$source.log
"$@" 2>"$report"
code=$?
grep -v -e '^ptxas info' -e 'bytes stack frame' -e '^$' "$report" >&2
awk '
  function value(text, unit) { return match(text, "[0-9]+ " unit) ? substr(text, RSTART) + 0 : 0 }
  /Compiling entry function/ { split($0, quoted, "\047"); kernel = quoted[2]; arch = quoted[4] }
  /bytes stack frame/ { stack = value($0, "bytes stack frame"); stores = value($0, "bytes spill stores") }
  /Used [0-9]+ registers/ {
    printf "%-6s %4d registers %6d bytes shared %5d bytes stack %5d bytes spilled  %s\n",
      arch, value($0, "registers"), value($0, "bytes smem"), stack, stores, kernel
  }' "$report" | { command -v c++filt >/dev/null && c++filt -p || cat; } | LC_ALL=C sort >"$folder/$source.txt"
rm -f "$report"
exit "$code"
