// The maps as functions on one tile of tokens in lanes, chosen once per call and then called
// through a pointer, so that no kernel is a template over maps.
#pragma once

#include "hyperstreams/maps/settings.h"
#include "simd.h"

namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE {

template <class T>
struct MapFunctions {
  using lanes_t = Lanes<T>;
  /// h_res is the logits themselves, and there are no functions.
  bool copies = false;
  /// Lanes of scratch that the functions need.
  int forward_scratch = 0, backward_scratch = 0;
  void (*forward)(const MapSettings& settings, int n, const lanes_t* logits, lanes_t* h_res,
                  lanes_t* scratch) = nullptr;
  void (*backward)(const MapSettings& settings, int n, const lanes_t* logits,
                   const lanes_t* grad_h_res, lanes_t* grad_logits, lanes_t* scratch) = nullptr;
};

template <class Map, int kN, class T>
MapFunctions<T> make_map_functions(const MapSettings& settings, int n) {
  using lanes_t = Lanes<T>;
  MapFunctions<T> functions;
  functions.forward_scratch = Map::forward_space(settings, n).kept;
  functions.backward_scratch = Map::backward_space(settings, n).kept;
  functions.forward = [](const MapSettings& s, int streams, const lanes_t* logits, lanes_t* h_res,
                         lanes_t* scratch) {
    Map::template forward<kN, lanes_t>(s, streams, logits, h_res, scratch);
  };
  functions.backward = [](const MapSettings& s, int streams, const lanes_t* logits,
                          const lanes_t* grad_h_res, lanes_t* grad_logits, lanes_t* scratch) {
    Map::template backward<kN, lanes_t>(s, streams, logits, grad_h_res, grad_logits, scratch);
  };
  return functions;
}

/// The functions of any map, in map_functions.cpp.
void find_map(const MapSettings& settings, int n, MapKind map, MapFunctions<float>* functions);
void find_map(const MapSettings& settings, int n, MapKind map, MapFunctions<double>* functions);

/// The functions of one map, instantiated for float and double in map_<name>.cpp.
template <class Map, class T>
void find_functions(const MapSettings& settings, int n, MapFunctions<T>* functions);

}  // namespace hyperstreams::cpu::HYPERSTREAMS_ISA_NAMESPACE
