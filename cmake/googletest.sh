#!/bin/sh
# Make GoogleTest available: use the one that is installed, or install the system's package when we
# may. Otherwise CMake fetches it (cmake/FindOrFetchGoogleTest.cmake).
set -eu

for prefix in /usr /usr/local ${CMAKE_PREFIX_PATH:-}; do
  for config in "$prefix"/lib/cmake/GTest/GTestConfig.cmake "$prefix"/lib/*/cmake/GTest/GTestConfig.cmake; do
    if [ -e "$config" ]; then exit 0; fi
  done
done

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing GoogleTest (libgtest-dev)"
  if apt-get -qq update && apt-get -qq install -y --no-install-recommends libgtest-dev; then exit 0; fi
fi
echo "GoogleTest is not installed: CMake will fetch its sources"
