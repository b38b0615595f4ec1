// A stub: the wheel has libtorch's Gloo, but not the headers that ProcessGroupGloo.hpp includes.
#pragma once
