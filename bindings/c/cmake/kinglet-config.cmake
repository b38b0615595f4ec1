# find_package(kinglet) gives kinglet::kinglet (shared, where it was installed) and kinglet::static.
get_filename_component(_kinglet_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_package(Threads REQUIRED)

if(NOT TARGET kinglet::static)
  add_library(kinglet::static STATIC IMPORTED)
  set_target_properties(kinglet::static PROPERTIES
    IMPORTED_LOCATION "${_kinglet_prefix}/lib/libkinglet.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_kinglet_prefix}/include"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
endif()

if(NOT TARGET kinglet::kinglet AND EXISTS "${_kinglet_prefix}/lib/libkinglet.so.1")
  add_library(kinglet::kinglet SHARED IMPORTED)
  set_target_properties(kinglet::kinglet PROPERTIES
    IMPORTED_LOCATION "${_kinglet_prefix}/lib/libkinglet.so.1"
    IMPORTED_SONAME "libkinglet.so.1"
    INTERFACE_INCLUDE_DIRECTORIES "${_kinglet_prefix}/include")
endif()
